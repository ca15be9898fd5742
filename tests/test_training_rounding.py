"""The integers of a learned prior, and the net that learns with them in mind."""

from __future__ import annotations

import numpy as np
import pytest

from snaccli.codes import Codes

torch = pytest.importorskip("torch")

from snaccli.entropy import mixing  # noqa: E402
from snaccli.training.corpus import Corpus  # noqa: E402
from snaccli.training.prior import PriorConfig, PriorNet, measure, train_prior  # noqa: E402
from snaccli.training.rounding import quantised, rounded, scales_of  # noqa: E402

STRIDES, SIZE = (2, 1), 16
CONFIG = PriorConfig(steps=150, width=4, hidden=16, out=8, windows=(8,), batch=256, rate=1e-2, dropped=0.0)
CODEBOOKS = [np.random.default_rng(level).standard_normal((SIZE, 8)).astype(np.float32) for level in (0, 1)]


def some_grids() -> list[Codes]:
    """Tokens of which each follows from the one before, but for one in eight."""
    rng, grids = np.random.default_rng(0), []
    for _ in range(4):
        fine = np.zeros(600, dtype=np.uint16)
        for t in range(1, fine.size):
            fine[t] = rng.integers(SIZE) if rng.random() < 0.125 else (5 * fine[t - 1] + 3) % SIZE
        grids.append(Codes((fine[None, ::2], fine[None]), STRIDES, SIZE))
    return grids


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus(some_grids())


@pytest.fixture(scope="module")
def net(corpus: Corpus) -> PriorNet:
    """One whose numbers are far from those that bytes can tell."""
    torch.manual_seed(0)
    net = PriorNet(CODEBOOKS, STRIDES, CONFIG)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        for table in net.embeddings:
            table[-1] = 0
    return net


def test_a_rounded_net_is_the_one_that_is_kept(net: PriorNet, corpus: Corpus) -> None:
    scales = scales_of(net, corpus, net.means(corpus))
    kept = PriorNet(CODEBOOKS, STRIDES, CONFIG)
    kept.take(quantised(net, scales, "model", "0" * 16, {}))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    floats = measure(net, corpus)
    with rounded(net, scales):
        within = measure(net, corpus)
    np.testing.assert_allclose(within, measure(kept, corpus), atol=5e-3)
    assert max(np.abs(np.subtract(within, floats))) > 0.01, "rounding changes this net"
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_gradients_are_those_of_the_rounded_net(net: PriorNet, corpus: Corpus) -> None:
    scales = scales_of(net, corpus, net.means(corpus))
    at = corpus.places[1][:64]
    data = corpus.context(1, at), net.means(corpus).at(1, at), at, corpus.levels[1][at]
    arguments = tuple(map(torch.from_numpy, data))

    def gradient() -> torch.Tensor:
        net.zero_grad()
        net.loss(1, *arguments).backward()
        found = net.get_parameter("first.1.weight").grad
        assert found is not None
        return found.clone()

    with rounded(net, scales):
        wanted = gradient()
        parameter = net.get_parameter("first.1.weight")
        factor = scales.levels[1].first * 2.0 ** scales.levels[1].shifts[0]
        integers = parameter.detach() * factor
        torch.testing.assert_close(integers, integers.round(), atol=1e-3, rtol=0)
    assert not torch.allclose(gradient(), wanted)


def test_floats_come_back_from_a_rounded_net_that_fails(net: PriorNet, corpus: Corpus) -> None:
    scales = scales_of(net, corpus, net.means(corpus))
    before = net.get_parameter("second.0.weight").clone()
    with pytest.raises(KeyboardInterrupt), rounded(net, scales):
        raise KeyboardInterrupt
    assert torch.equal(net.get_parameter("second.0.weight"), before)


def test_sums_are_rounded_not_cut_off(net: PriorNet, corpus: Corpus) -> None:
    """Hidden units and outputs are shifted down; half a step in the offsets makes that rounding."""
    scales = scales_of(net, corpus, net.means(corpus))
    prior = quantised(net, scales, "model", "0" * 16, {})
    at = corpus.places[1]
    seen, means = corpus.context(1, at), net.means(corpus).at(1, at)
    tables = np.pad(prior.embedding, ((0, 0), (0, 1), (0, 0))).astype(np.int64)
    inputs = [tables[k][seen[:, n]] for n, k in enumerate(prior.inputs[1].levels[: prior.inputs[1].tokens])]
    inputs.append(np.rint(means * scales.embedding).astype(np.int64))
    layer, x = prior.layers[1], np.concatenate(inputs, axis=1)
    sums = x @ layer.first.astype(np.int64) + layer.first_bias[at % len(layer.first_bias)]
    hidden = np.clip(sums >> layer.shifts[0], 0, mixing.HIDDEN_LIMIT)
    out = (hidden @ layer.second.T.astype(np.int64) + layer.second_bias) >> layer.shifts[1]
    with rounded(net, scales), torch.no_grad():
        units, outs = net.inner(1, *map(torch.from_numpy, (seen, means, at)))
    active = (hidden > 0) & (hidden < mixing.HIDDEN_LIMIT)
    assert abs((hidden - units.numpy() * scales.levels[1].hidden)[active].mean()) < 0.1
    assert abs((out - outs.numpy() * scales.levels[1].out).mean()) < 0.25


def test_a_training_tells_the_bits_of_what_it_keeps(corpus: Corpus) -> None:
    grids = some_grids()
    prior = train_prior(grids, grids, CODEBOOKS, model="model", fingerprint="0" * 16, config=CONFIG)
    kept = PriorNet(CODEBOOKS, STRIDES, CONFIG)
    kept.take(prior)
    np.testing.assert_allclose(measure(kept, corpus), prior.summary["held_out_bits"], atol=5e-3)
    assert prior.summary["held_out_bits"][1] < 2, "it has learned what follows what"

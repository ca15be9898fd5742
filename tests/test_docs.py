"""The documentation does what it says: its commands and examples run, and what it names exists."""

from __future__ import annotations

import dataclasses
import importlib
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import soundfile

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PYTHON_PAGE = ROOT / "docs" / "python.md"
SHIPPED_MODEL = ROOT / "snac" / "models" / "mini"

BLOCK = re.compile(
    r"(?:<!-- shown, not run: (?P<why>[^\n]+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; ``why`` says why it is shown only, and is empty for those that run."""

    line: int
    language: str
    text: str
    why: str


def blocks(language: str, page: Path = README) -> list[Block]:
    markdown = page.read_text(encoding="utf-8")
    return [
        Block(markdown[: match.start("text")].count("\n") + 1, language, match["text"], match["why"] or "")
        for match in BLOCK.finditer(markdown)
        if match["language"] == language
    ]


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    shown = command[-1] if len(command[-1]) > 60 else " ".join(command)
    assert done.returncode == 0, f"{shown}\n{done.stdout}{done.stderr}"
    return done.stdout


needs_shipped_model = pytest.mark.skipif(
    not (SHIPPED_MODEL / "config.json").is_file(), reason="the shipped model mini is not in this checkout"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, recording: Path) -> Path:
    """What README's commands find: talk.wav and a small tree of recordings."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copy(recording, folder / "talk.wav")
    samples, rate = soundfile.read(recording, dtype="int16")
    (folder / "recordings" / "more").mkdir(parents=True)
    soundfile.write(folder / "recordings" / "one.wav", samples[:rate], rate)
    soundfile.write(folder / "recordings" / "more" / "two.flac", samples[rate : 2 * rate], rate)
    return folder


@needs_shipped_model
@pytest.mark.slow
def test_readme_commands_run_one_after_another(folder: Path, user_environment: dict[str, str]) -> None:
    for block in blocks("sh"):
        if not block.why:
            run(["bash", "-euo", "pipefail", "-c", block.text], folder, user_environment)
    original, restored = soundfile.info(folder / "talk.wav"), soundfile.info(folder / "again.wav")
    assert (restored.samplerate, restored.frames) == (original.samplerate, original.frames)
    assert sorted(path.name for path in (folder / "restored").rglob("*.wav")) == ["one.wav", "two.wav"]


@needs_shipped_model
@pytest.mark.slow
def test_readme_python_runs(folder: Path, user_environment: dict[str, str]) -> None:
    assert blocks("python")
    for block in blocks("python"):
        run([sys.executable, "-c", block.text], folder, user_environment)
    assert soundfile.info(folder / "restored.wav").frames == soundfile.info(folder / "talk.wav").frames


@needs_shipped_model
@pytest.mark.slow
def test_the_examples_of_the_python_page_run(
    tmp_path: Path, folder: Path, user_environment: dict[str, str]
) -> None:
    """As one program: later examples use the names of earlier ones."""
    shutil.copy(folder / "talk.wav", tmp_path)
    shutil.copytree(folder / "recordings", tmp_path / "recordings")
    examples = [block.text for block in blocks("python", PYTHON_PAGE) if not block.why]
    assert len(examples) >= 5
    run([sys.executable, "-c", "\n".join(examples)], tmp_path, user_environment)


def test_the_python_page_has_every_public_name_and_field() -> None:
    import snac
    import snaccli
    from snaccli.codec import Recording

    page = PYTHON_PAGE.read_text(encoding="utf-8")
    results = snaccli.EncodeResult, snaccli.DecodeResult, Recording
    fields = {field.name for result in results for field in dataclasses.fields(result)}
    for name in {*snac.__all__, *snaccli.__all__, *fields} - {"__version__"}:
        assert re.search(rf"\b{name}\b", page), f"docs/python.md says nothing of {name}"


@pytest.mark.parametrize(
    "page", sorted(path.relative_to(ROOT).as_posix() for path in [README, *(ROOT / "docs").rglob("*.md")])
)
def test_modules_and_paths_that_pages_name_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for path in re.findall(r"`((?:snac|snaccli|tests|docs|examples)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), f"{page} names {path}, which is not there"
    for name in re.findall(r"`((?:snac|snaccli)\.[a-z_.]+[a-z_])(?:\.[A-Z]\w*)?`", text):
        place = ROOT.joinpath(*name.split("."))
        there = place.is_dir() or place.with_suffix(".py").is_file() or _is_attribute(name)
        assert there or name.endswith(".snac"), f"{page} names {name}, which is not there"


def _is_attribute(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), attribute)
    except ImportError:
        return False


@pytest.mark.parametrize("block", blocks("sh"), ids=lambda block: f"line-{block.line}")
def test_readme_shell_blocks_are_well_formed(
    block: Block, tmp_path: Path, user_environment: dict[str, str]
) -> None:
    run(["bash", "-n", "-c", block.text], tmp_path, user_environment)
    for path in re.findall(r"\bbash (\S+\.sh)\b", block.text):
        assert (ROOT / path).is_file(), f"README line {block.line} names {path}, which is not there"


def calls(text: str) -> list[list[str]]:
    """The words of each call of snac in a block, comments left out."""
    found = []
    for line in text.splitlines():
        for part in re.split(r"[|;]|&&", line.partition("#")[0]):
            words = part.split()
            if words and words[0] == "snac":
                found.append(words[1:])
    return found


ALL_CALLS = sorted({tuple(words) for block in blocks("sh") for words in calls(block.text)})


@pytest.mark.parametrize("words", ALL_CALLS, ids=" ".join)
def test_readme_options_exist(words: tuple[str, ...]) -> None:
    from snaccli.cli.app import snac_command

    command, rest = snac_command(), list(words)
    while hasattr(command, "list_commands") and rest:
        below = command.get_command(None, rest[0])
        assert below is not None, f"snac {' '.join(words)}: no command {rest[0]}"
        command = below
        del rest[0]
    known = {"--help", *(flag for param in command.params for flag in param.opts + param.secondary_opts)}
    for word in rest:
        if word.startswith("-") and word != "-":
            assert word in known, f"snac {' '.join(words)}: no option {word}"


def test_the_command_reference_is_current(tmp_path: Path, user_environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_cli.py", "--check"],
        cwd=tmp_path,
        env=user_environment,
    )
    assert done.returncode == 0, "docs/cli.md is stale: python docs/make_cli.py"


def test_every_command_is_in_the_readme() -> None:
    from snaccli.cli.app import COMMANDS

    named = {words[0] for words in ALL_CALLS if words}
    assert set(COMMANDS) <= named, f"README shows no use of {sorted(set(COMMANDS) - named)}"


@pytest.mark.parametrize(
    "page",
    sorted(
        path.relative_to(ROOT).as_posix()
        for path in [README, *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")]
    ),
)
def test_links_lead_to_files(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{page} links to {target}, which is not there"


def test_figures_are_put_between_their_marks_or_nowhere() -> None:
    from docs.put import replaced

    page = "a\n<!-- x -->\n\nold\n\n<!-- /x -->\nb\n<!-- y -->\n<!-- /y -->\n"
    assert replaced(page, "x", "new\n\\1\n") == page.replace("old", "new\n\\1")
    assert replaced(page, "y", "z").endswith("<!-- y -->\n\nz\n\n<!-- /y -->\n")
    for name in ("missing", "a.*"):
        with pytest.raises(ValueError, match="no one place"):
            replaced(page, name, "z")
    with pytest.raises(ValueError, match="no one place"):
        replaced(page * 2, "x", "z")

"""From inputs and -o to jobs: folders, mirrored trees, clashes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from snaccli.cli.plan import OutputClashError, check_format, expand, find_sources, is_snac, make_plan
from snaccli.errors import UsageError
from snaccli.workers import Job


def is_audio(name: str) -> bool:
    return name.endswith((".wav", ".flac"))


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def plan(inputs, output=None, *, extension=".snac", replaces=None, wanted=is_audio):
    sources = find_sources(inputs, wanted=wanted, kind="audio file")
    return make_plan(sources, output, extension=extension, replaces=replaces)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Tests name files relative to a folder of their own, as users do."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("song.wav", "song.snac"),
        ("a.b/song.v2.WAV", "a.b/song.v2.snac"),
        ("a.b/song", "a.b/song.snac"),
        ("./-", "./-.snac"),
        (".wav", ".wav.snac"),
        ("[x] 100%.flac", "[x] 100%.snac"),
    ],
)
def test_the_extension_changes_beside_the_input(here, source, output):
    touch(here / source)
    assert plan([source]).jobs == [Job(source, output)]
    assert not plan([source]).batch


@pytest.mark.parametrize(
    ("source", "output"),
    [("a.snac", "a.flac"), ("a.SNAC", "a.flac"), ("a", "a.flac"), ("a.wav", "a.wav.flac")],
)
def test_decoding_replaces_only_the_extension_of_its_own_files(here, source, output):
    touch(here / source)
    assert plan([source], extension=".flac", replaces=".snac").jobs == [Job(source, output)]


def test_output_names_a_file_or_a_folder(here):
    touch(here / "a.wav", here / "sub" / "b.wav")
    (here / "there").mkdir()
    assert plan(["a.wav"], "x.bin").jobs == [Job("a.wav", "x.bin")]
    assert plan(["a.wav"], "there").jobs == [Job("a.wav", os.path.join("there", "a.snac"))]
    assert plan(["a.wav"], "new/").jobs == [Job("a.wav", "new/a.snac")]
    assert plan(["a.wav"], "-").jobs == [Job("a.wav", "-")]
    assert plan(["a.wav", "sub/b.wav"], "new").jobs == [
        Job("a.wav", os.path.join("new", "a.snac")),
        Job("sub/b.wav", os.path.join("new", "b.snac")),
    ]


def test_standard_input_goes_to_standard_output_unless_told_otherwise(here):
    assert plan(["-"]).jobs == [Job("-", "-")]
    assert plan(["-"], "x.snac").jobs == [Job("-", "x.snac")]
    (here / "there").mkdir()
    assert plan(["-"], "there").jobs == [Job("-", os.path.join("there", "stdin.snac"))]


def test_a_tree_is_mirrored_in_a_fixed_order(here):
    names = ["b.wav", "a.flac", "z/1.wav", "z/y/2.wav", "c/3.wav", "cover.jpg", "z/notes.txt"]
    hidden = [".hidden.wav", ".git/4.wav", "z/._1.wav"]
    touch(*(here / "in" / name for name in names + hidden))
    jobs = plan(["in"], "out").jobs
    below = ["a.flac", "b.wav", "c/3.wav", "z/1.wav", "z/y/2.wav"]
    assert [job.source for job in jobs] == [os.path.join("in", *name.split("/")) for name in below]
    outputs = ["a", "b", "c/3", "z/1", "z/y/2"]
    assert [job.output for job in jobs] == [
        os.path.join("out", *name.split("/")) + ".snac" for name in outputs
    ]
    beside = plan(["in"]).jobs
    assert [job.output for job in beside] == [os.path.splitext(job.source)[0] + ".snac" for job in beside]
    assert plan(["in"]).batch


def test_a_hidden_or_strange_file_is_taken_when_named(here):
    touch(here / ".hidden.wav", here / "picture.jpg")
    assert len(plan([".hidden.wav", "picture.jpg"]).jobs) == 2


def test_links_to_folders_are_not_followed_and_said_so(here):
    touch(here / "in" / "a.wav", here / "elsewhere" / "b.wav")
    (here / "in" / "circle").symlink_to(here / "in", target_is_directory=True)
    (here / "in" / "other").symlink_to(here / "elsewhere", target_is_directory=True)
    (here / "in" / "file.wav").symlink_to(here / "elsewhere" / "b.wav")
    found = plan(["in"], "out")
    assert [job.source for job in found.jobs] == ["in/a.wav", "in/file.wav"]
    assert found.remarks == ["in/circle: linked folder not followed", "in/other: linked folder not followed"]
    (here / "link").symlink_to(here / "in", target_is_directory=True)
    assert len(plan(["link"]).jobs) == 2, "one that the user names is followed"


def test_problems_are_kept_for_the_report(here):
    touch(here / "a.wav", here / "empty" / "readme.txt")
    found = plan(["missing.wav", "a.wav", "empty"])
    assert [job.source for job in found.jobs] == ["a.wav"]
    assert [name for name, _ in found.problems] == ["missing.wav", "empty"]
    assert isinstance(found.problems[0][1], FileNotFoundError)
    assert "no audio file in this folder" in str(found.problems[1][1])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="unreadable folders, as root")
def test_an_unreadable_folder_is_a_problem_of_its_own(here):
    touch(here / "in" / "a.wav", here / "in" / "closed" / "b.wav")
    (here / "in" / "closed").chmod(0)
    try:
        found = plan(["in"])
    finally:
        (here / "in" / "closed").chmod(0o700)
    assert [job.source for job in found.jobs] == ["in/a.wav"]
    assert [name for name, _ in found.problems] == [os.path.join("in", "closed")]


def test_two_inputs_for_one_output_are_refused_by_name(here):
    touch(here / "in" / "a.wav", here / "in" / "a.flac")
    with pytest.raises(OutputClashError, match=r"in.a\.flac and in.a\.wav would both become in.a\.snac"):
        plan(["in"])
    touch(here / "one" / "x.wav", here / "two" / "x.wav")
    with pytest.raises(OutputClashError, match=r"x\.wav and .*x\.wav would both become"):
        plan(["one", "two"], "out")
    with pytest.raises(OutputClashError):
        plan(["one/x.wav", "in/../two/x.wav"], "out")


def test_all_clashes_are_named_as_far_as_there_is_room(here):
    for number in range(12):
        touch(here / "in" / f"{number:02}.wav", here / "in" / f"{number:02}.flac")
    with pytest.raises(OutputClashError) as caught:
        plan(["in"])
    told = str(caught.value)
    assert told.count("would both become") == 10
    assert "in/00.flac and in/00.wav" in told.replace(os.sep, "/")
    assert "in/09.flac and in/09.wav" in told.replace(os.sep, "/")
    assert "; and 2 more; nothing was written; " in told


@pytest.mark.parametrize("name", ["one.snac", "one.SNAC", "one.flac", "new/one.wav"])
def test_several_inputs_do_not_make_a_folder_with_the_name_of_a_file(here, name):
    touch(here / "a.wav", here / "b.wav")
    with pytest.raises(UsageError, match="is the name of a file; for several inputs -o names a folder"):
        plan(["a.wav", "b.wav"], name)
    assert len(plan(["a.wav", "b.wav"], f"{name}/").jobs) == 2
    (here / name).mkdir(parents=True)
    assert len(plan(["a.wav", "b.wav"], name).jobs) == 2
    assert len(plan(["a.wav", "b.wav"], "v1.2").jobs) == 2


@pytest.mark.parametrize(
    ("wanted", "name", "fits"),
    [
        ("flac", "p.wav", False),
        ("wav", "p.snac", False),
        ("wav", "p.m4a", False),
        ("snac", "p.wav", False),
        ("snac", "p.snac", True),
        (".FLAC", "p.flac", True),
        ("opus", "p.ogg", True),
        ("aif", "p.aiff", True),
        ("wav", "p.wave", True),
        ("flac", "p", True),
        ("flac", "p.data", True),
        ("flac", "-", True),
        (None, "p.wav", True),
    ],
)
def test_a_format_must_not_contradict_the_name(wanted, name, fits):
    if fits:
        check_format(name, wanted)
    else:
        with pytest.raises(UsageError, match=f"--format {wanted} contradicts the name {name}"):
            check_format(name, wanted)


def test_one_file_named_twice_is_done_once(here):
    touch(here / "in" / "a.wav")
    assert plan(["in", "in/a.wav", "./in/a.wav"]).jobs == [Job(os.path.join("in", "a.wav"), "in/a.snac")]


@pytest.mark.parametrize("output", ["a.wav", "./a.wav", "sub/../a.wav", "link.wav"])
def test_output_equal_to_input_is_refused(here, output):
    touch(here / "a.wav", here / "sub" / "x")
    (here / "link.wav").symlink_to("a.wav")
    with pytest.raises(OutputClashError, match="input and output are the same file"):
        plan(["a.wav"], output)


def test_an_output_that_is_another_input_is_refused(here):
    touch(here / "a.snac", here / "b.snac", here / "b.wav")
    with pytest.raises(OutputClashError, match=r"b\.snac would be written over .*b\.wav"):
        plan(["a.snac", "b.snac", "b.wav"], ".", extension=".wav", replaces=".snac")


@pytest.mark.parametrize(
    ("inputs", "output", "message"),
    [
        (["a.wav", "b.wav"], "-", "give -o a folder"),
        (["a.wav", "b.wav"], "b.wav", "is a file"),
        (["a.wav", "-"], None, "cannot be one of several"),
        (["a.wav"], "", "empty name"),
    ],
)
def test_inputs_and_output_that_do_not_fit(here, inputs, output, message):
    touch(here / "a.wav", here / "b.wav")
    with pytest.raises(UsageError, match=message):
        plan(inputs, output)


@pytest.mark.skipif(not os.path.exists("/dev/fd/0"), reason="no folder /dev/fd for the pipes of a shell")
def test_beside_a_pipe_of_a_shell_nothing_can_stand(here):
    reading, writing = os.pipe()
    try:
        with pytest.raises(UsageError, match=rf"/dev/fd/{reading} is a pipe, .*; give -o a file"):
            plan([f"/dev/fd/{reading}"])
        assert plan([f"/dev/fd/{reading}"], "x.snac").jobs == [Job(f"/dev/fd/{reading}", "x.snac")]
    finally:
        os.close(reading)
        os.close(writing)


def test_patterns_are_expanded_where_the_shell_does_not(here):
    touch(here / "a.wav", here / "b.wav", here / "x[1].wav")
    assert expand(["*.wav"], globs=True) == ["a.wav", "b.wav", "x[1].wav"]
    assert expand(["x[1].wav"], globs=True) == ["x[1].wav"], "a file of that very name comes first"
    assert expand(["*.mp3", "a.wav"], globs=True) == ["*.mp3", "a.wav"], "no match is an error later"
    assert expand(["*.wav"], globs=False) == ["*.wav"]


def test_snac_files_are_known_by_their_extension():
    assert is_snac("a.snac")
    assert is_snac("A.SNAC")
    assert not is_snac("a.snac.part")


def test_a_folder_that_cannot_be_read_is_told_of_once(here, monkeypatch):
    touch(here / "in" / "a.wav")

    def refused(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("snaccli.io.files.os.scandir", refused)
    sources = find_sources(["in"], wanted=is_audio, kind="audio file")
    assert [(name, type(problem)) for name, problem in sources.problems] == [("in", PermissionError)]

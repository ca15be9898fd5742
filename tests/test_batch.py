"""Running many jobs: order, failures, workers, stopping."""

from __future__ import annotations

import threading
import time
from contextlib import closing

import pytest

from snaccli.errors import OutputError
from snaccli.workers import Cancelled, Job, Outcome, interruption, ordered_map, run_jobs

JOBS = [Job(f"{n}.wav", f"{n}.snac") for n in range(20)]


def test_one_worker_keeps_the_order_and_stays_in_the_calling_thread():
    threads = set()

    def work(job, progress):
        threads.add(threading.current_thread())
        return job.source.upper()

    outcomes = list(run_jobs(JOBS, work))
    assert [outcome.job for outcome in outcomes] == JOBS
    assert [outcome.result for outcome in outcomes] == [job.source.upper() for job in JOBS]
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize("workers", [1, 2, 7, 40])
def test_every_job_ends_exactly_once_and_failures_do_not_stop_the_rest(workers):
    def work(job, progress):
        progress(0.5)
        if job.source in ("3.wav", "19.wav"):
            raise ValueError(job.source)
        return job.output

    outcomes = list(run_jobs(JOBS, work, workers=workers))
    assert sorted(outcome.job.source for outcome in outcomes) == sorted(job.source for job in JOBS)
    failed = {outcome.job.source: str(outcome.error) for outcome in outcomes if outcome.error}
    assert failed == {"3.wav": "3.wav", "19.wav": "19.wav"}
    assert all(outcome.result == outcome.job.output for outcome in outcomes if not outcome.error)
    assert not any(outcome.skipped for outcome in outcomes)


def test_workers_do_run_at_the_same_time():
    meeting = threading.Barrier(2, timeout=300)

    def work(job, progress):
        meeting.wait()
        return True

    assert all(outcome.result for outcome in run_jobs(JOBS[:2], work, workers=2))


@pytest.mark.parametrize("workers", [1, 3])
def test_events_name_the_job_and_come_in_order(workers):
    events = {job: [] for job in JOBS}

    class Watch:
        def __init__(self, job):
            self.seen = events[job]
            self.seen.append("begun")

        def started(self, seconds):
            self.seen.append(("seconds", seconds))

        def __call__(self, fraction):
            self.seen.append(fraction)

    def work(job, progress):
        progress.started(3.0)
        progress(0.25)
        progress(1.0)

    outcomes = run_jobs(JOBS, work, workers=workers, watch=Watch)
    assert len(list(outcomes)) == len(JOBS)
    assert all(seen == ["begun", ("seconds", 3.0), 0.25, 1.0] for seen in events.values())


def test_an_interrupt_in_the_work_of_one_worker_comes_through():
    def work(job, progress):
        if job is JOBS[2]:
            raise KeyboardInterrupt
        return 1

    outcomes = run_jobs(JOBS, work)
    assert [next(outcomes).result, next(outcomes).result] == [1, 1]
    with pytest.raises(KeyboardInterrupt):
        next(outcomes)


def test_closing_stops_the_workers_at_their_next_progress_call_and_lets_them_clean_up():
    started = threading.Semaphore(0)
    cleaned = []

    def work(job, progress):
        if job is JOBS[0]:
            return "first"
        started.release()
        try:
            while True:
                progress(0.1)
                time.sleep(0.001)
        finally:
            cleaned.append(job)

    outcomes = run_jobs(JOBS, work, workers=3)
    with closing(outcomes):
        assert next(outcomes) == Outcome(JOBS[0], result="first")
        for _ in range(3):
            assert started.acquire(timeout=300)
    assert len(cleaned) == 3, "each of the three running jobs was unwound, no other was begun"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("job-")]


def test_what_is_not_an_exception_of_the_job_ends_the_run():
    def work(job, progress):
        if job is JOBS[5]:
            raise SystemExit(3)
        return 1

    with pytest.raises(SystemExit):
        list(run_jobs(JOBS, work, workers=2))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("job-")]


def test_no_jobs_and_no_workers():
    assert list(run_jobs([], lambda job, progress: 1, workers=4)) == []
    with pytest.raises(ValueError, match="at least 1"):
        list(run_jobs(JOBS, lambda job, progress: 1, workers=0))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 100])
def test_results_come_in_the_order_of_the_items(workers, count):
    def work(number):
        time.sleep(0.002 * (number % 3))
        return -number

    assert list(ordered_map(work, range(count), workers)) == [-number for number in range(count)]


def test_items_are_taken_as_they_are_needed():
    taken = []

    def items():
        for number in range(1000):
            taken.append(number)
            yield number

    with closing(ordered_map(str, items(), 2, ahead=3)) as results:
        assert next(results) == "0"
        assert len(taken) == 6
        assert next(results) == "1"
        assert len(taken) == 7


def test_an_error_comes_in_the_place_of_its_result_and_stops_the_rest():
    stop = threading.Event()
    ended = []

    def work(number):
        if number == 2:
            raise ValueError("two")
        if number > 2:
            stop.wait(300)
            ended.append(number)
            raise Cancelled
        return number

    results = ordered_map(work, range(100), 3, stop=stop)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)
    assert stop.is_set()
    assert ended
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("snac-map")]


def interrupted_import():
    """What an extension module makes of ctrl-C while it is imported."""
    try:
        raise KeyboardInterrupt("now")
    except KeyboardInterrupt as error:
        raise ImportError("initialization failed") from error


def test_an_interrupt_within_an_import_is_no_failure_of_a_job():
    done = []

    def work(job, progress):
        done.append(job)
        interrupted_import()

    with pytest.raises(KeyboardInterrupt, match="now"):
        list(run_jobs([Job("a", "b"), Job("c", "d")], work))
    assert len(done) == 1


def test_the_interrupt_behind_an_error_is_found():
    with pytest.raises(ImportError) as caught:
        interrupted_import()
    assert isinstance(interruption(caught.value), KeyboardInterrupt)
    first, second = ValueError(), ValueError()
    first.__cause__, second.__context__ = second, first  # in a circle
    assert interruption(first) is None


def test_what_goes_wrong_while_an_interrupt_is_dealt_with_is_told():
    failure = OutputError("cannot be kept: the disk is full", "x.state")
    failure.__context__ = KeyboardInterrupt()
    assert interruption(failure) is None

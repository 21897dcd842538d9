"""Shows that tests can fail: takes one guard at a time out of a copy of the code, and runs the tests that need it.

    python -m tests.guards [WORDS ...]      all guards, or those whose fault or tests hold one of the words
    python -m tests.guards --table          the table in docs/testing.md

The faults are numbered as in docs/testing.md.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
COPIED = ("akidb_mlx", "model_cache", "tests", "benchmarks", "pyproject.toml")


@dataclass(frozen=True)
class Guard:
    """What protects from a fault, and what the code would be without it.

    Attributes:
        fault: its number, and what happens.
        test: file and function, below tests/, of what must fail without the guard.
        guard: what it is, for a person.
        changes: of each file the text that is replaced, and by what; the text occurs once.
        case: a word of the test's parameters, if not all are meant.
    """

    fault: str
    test: str
    guard: str
    changes: tuple[tuple[str, str, str], ...]
    case: str = ""


HUB, RETRIES, STORE, FILES, NAMES = (f"model_cache/{name}.py" for name in ("hub", "retries", "store", "files", "names"))
DOWNLOADER, RESOLVER, HUB_CACHE = (f"model_cache/{name}.py" for name in ("download", "resolver", "hub_cache"))
CACHE_LOCKS, STORED_MODEL, EVICTION = (f"model_cache/{name}.py" for name in ("locks", "stored_model", "eviction"))
VERIFIED, RECORD, FOLDERS = (f"model_cache/{name}.py" for name in ("verified", "record", "folders"))
TURNS = "akidb_mlx/runtime/device_turns.py"
ENGINE, QUEUE, STEPS, LIFE = (
    f"akidb_mlx/engine/{name}.py" for name in ("engine", "request_queue", "step_loop", "life")
)
REQUESTS, TOKENIZER, LOCKS = (
    "akidb_mlx/engine/requests.py",
    "akidb_mlx/checkpoint/tokenizer.py",
    "akidb_mlx/runtime/locks.py",
)
LIVES, DEADLINES, REENTRANCY = "test_engine_lives.py::", "test_deadlines.py::", "test_reentrancy.py::"
DOWNLOAD, IN_STORE = "test_download.py::", "test_store.py::"
IN_HUB_CACHE, ACCESS, PROCESSES = "test_hub_cache.py::", "test_cache_access.py::", "test_cache_processes.py::"

GUARDS = (
    Guard(
        "1 body cut off",
        f"{DOWNLOAD}test_a_download_goes_on_where_it_was_cut",
        "the rest is asked for with Range",
        ((HUB, "        if size:\n            headers", "        if False:\n            headers"),),
    ),
    Guard(
        "1 body cut off, for ever",
        f"{DOWNLOAD}test_a_body_that_ends_early_every_time",
        "six attempts that bring nothing are the end",
        ((HUB, "    if size < file.size:\n        raise", "    if False:\n        raise"),),
    ),
    Guard(
        "2 right size, wrong bytes",
        f"{DOWNLOAD}test_wrong_bytes_twice_are_refused_by_name",
        "SHA-256 of what came",
        ((HUB, "        if file.is_at(part):", "        if True:"),),
    ),
    Guard(
        "2 wrong bytes, once",
        f"{DOWNLOAD}test_a_failure_that_passes",
        "fetched once more",
        ((HUB, "for _ in range(2):", "for _ in range(1):"),),
        "flip",
    ),
    Guard(
        "3 500, 503, 429",
        f"{DOWNLOAD}test_a_failure_that_passes",
        "retries of what is transient",
        ((RETRIES, "return status in (408, 429) or status >= 500", "return False"),),
        "status",
    ),
    Guard(
        "3 reset",
        f"{DOWNLOAD}test_a_failure_that_passes",
        "retries of what is transient",
        ((RETRIES, "return isinstance(error, (HTTPError, OSError))", "return False"),),
        "reset",
    ),
    Guard(
        "3 stall",
        f"{DOWNLOAD}test_a_hub_that_falls_silent",
        "a time-out for each read",
        ((HUB, "timeout=timeout) as response", "timeout=None) as response"),),
    ),
    Guard(
        "3 a trickle without end",
        f"{DOWNLOAD}test_a_download_that_would_never_end",
        "one deadline, looked at with every chunk",
        ((HUB, "                check_deadline(deadline)\n", ""),),
    ),
    Guard(
        "3 ignored Range",
        f"{DOWNLOAD}test_a_range_that_is_ignored",
        "an answer other than 206 starts the file anew",
        ((HUB, "if size and response.status_code != 206:", "if False:"),),
    ),
    Guard(
        "3 the Hub is down, the model is here",
        f"{DOWNLOAD}test_a_cached_copy_serves_while_the_hub_is_down",
        "what is here and whole is taken without a request",
        (
            (
                RESOLVER,
                "if intact := next((model for model in stored if not model.damaged), None):",
                "if intact := None:",
            ),
        ),
    ),
    Guard(
        "3 a body without end",
        f"{DOWNLOAD}test_a_body_that_is_longer_than_declared_is_not_read_to_its_end",
        "no more is read than was declared",
        ((HUB, "if size > file.size:", "if False:"),),
    ),
    Guard(
        "4 redirect to another host",
        f"{DOWNLOAD}test_a_token_does_not_leave_its_host",
        "the session follows redirects itself and drops the token there",
        (
            (
                HUB,
                "    with part.open",
                "    url = get_session().get(url, headers=build_hf_headers()).url\n    with part.open",
            ),
        ),
    ),
    Guard(
        "4 gated",
        f"{DOWNLOAD}test_a_gated_model_explains_itself",
        "401 and 403 are explained",
        ((RETRIES, "if isinstance(error, GatedRepoError) or status == 403:", "if False:"),),
    ),
    Guard(
        "5 kill -9 in mid-download",
        f"{DOWNLOAD}test_a_killed_download_leaves_nothing_that_misleads",
        "a folder of its own until it is whole, and a look at the files of one without a record",
        (
            (STORE, "        return folder / name\n", "        return self.root / repo.folder / commit\n"),
            (STORE, "(folder / name).mkdir(", "(self.root / repo.folder / commit).mkdir("),
            (STORE, "record.write(staged)\n", "record.write(staged)\n        return StoredModel(record, staged, ())\n"),
            (STORED_MODEL, "        if incomplete:\n", "        if False:\n"),
        ),
    ),
    Guard(
        "5 debris",
        f"{IN_STORE}test_what_was_left_behind_goes_with_the_next_download",
        "what killed processes left is deleted",
        ((STORE, "            self._clean_up(repo)\n", ""),),
    ),
    Guard(
        "6 disk full",
        f"{DOWNLOAD}test_a_full_disk_is_noticed_before_the_download",
        "bytes needed against bytes free, before",
        ((DOWNLOADER, "if to_receive + _RESERVED_BYTES > free:", "if False:"),),
    ),
    Guard(
        "6 disk full meanwhile",
        f"{IN_STORE}test_a_disk_that_fills_up_during_a_download",
        "an error of the disk is not retried",
        ((RETRIES, "error.errno in (errno.ENOSPC, ", "error.errno in ("),),
    ),
    Guard(
        "7 sixteen cold starts",
        f"{DOWNLOAD}test_many_processes_start_cold",
        "one lock around the download",
        ((STORE, 'with locks.exclusive(self.root / repo.folder / "download.lock", timeout):', "if True:"),),
    ),
    Guard(
        "7 locks that do nothing",
        f"{IN_STORE}test_where_locks_do_nothing_each_download_has_a_folder_of_its_own_and_the_first_wins",
        "a probe of the lock, then a folder for each process",
        ((STORE, "if not locks.are_enforced(folder):", "if False:"),),
    ),
    Guard(
        "8 eviction while another process has it",
        f"{DOWNLOAD}test_what_is_open_in_another_process_stays",
        "removing needs the lock alone",
        (
            (STORE, '            if not claimed:\n                return "in use"\n', ""),
            (STORED_MODEL, "return locks.is_held(self.lock)", "return False"),
        ),
    ),
    Guard(
        "8 eviction while a service has it",
        "test_service.py::test_a_service_keeps_its_model_from_being_removed",
        "a service holds the lock until it is closed",
        (("akidb_mlx/resolve.py", "resources.enter_context(cache.acquire(", "(cache.ensure("),),
    ),
    Guard(
        "8 removal between finding and opening",
        f"{IN_STORE}test_a_model_that_goes_between_finding_and_opening_is_looked_for_again",
        "a look after the lock is taken",
        ((STORED_MODEL, "yield self.path.is_dir()", "yield True"),),
    ),
    Guard(
        "9 broken index",
        f"{IN_STORE}test_an_index_that_is_garbage",
        "one error for all that an index may be",
        ((FILES, "except (OSError, ValueError, KeyError, TypeError, A", "except (ZeroDivisionError, A"),),
    ),
    Guard(
        "9 empty ref in the Hub's cache",
        f"{IN_HUB_CACHE}test_a_copy_that_was_never_complete_is_not_used",
        "what the client does not find is not there",
        (
            (HUB_CACHE, "except (FileNotFoundError, NotADirectoryError, ValueError)", "except ZeroDivisionError"),
            (HUB_CACHE, "except OSError", "except ZeroDivisionError"),
        ),
    ),
    Guard(
        "9 missing or cut file",
        f"{DOWNLOAD}test_a_damaged_file_is_fetched_again_once",
        "sizes are compared with the record",
        ((STORED_MODEL, "damaged = tuple(record.find_damaged(path))", "damaged = ()"),),
    ),
    Guard(
        "9 changed file",
        f"{DOWNLOAD}test_a_changed_byte_is_found_by_verify_and_mended_by_repair",
        "`verify` compares hashes",
        ((RECORD, "(not check_hash or sha256(path) == self.sha256)", "True"),),
    ),
    Guard(
        "9 damaged record",
        f"{DOWNLOAD}test_a_lost_record_is_made_anew_from_the_files",
        "a record is made anew from the files",
        ((STORED_MODEL, "CacheRecord.read(path) or _rebuild_record(path)", "CacheRecord.read(path)"),),
    ),
    Guard(
        "9 read-only cache",
        f"{IN_STORE}test_a_cache_that_cannot_be_written_still_serves",
        "a model that cannot be locked is opened",
        ((CACHE_LOCKS, "FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)", "FORBIDDEN = ()"),),
    ),
    Guard(
        "9 damaged copy in the Hub's cache",
        f"{DOWNLOAD}test_a_damaged_copy_in_the_hubs_cache_is_not_used",
        "the hashes that its blobs are named by",
        ((VERIFIED, "if actual == digest:", "if True:"),),
    ),
    Guard(
        "34 one that asks is taken for a user",
        f"{PROCESSES}test_one_that_asks_is_not_taken_for_a_user",
        "one lock round all that take a model's lock exclusively",
        ((STORED_MODEL, "            with changing(self.path.parent):\n    ", "            if True:\n    "),),
    ),
    Guard(
        "34 two evictions at once",
        f"{PROCESSES}test_what_another_process_evicted_counts_as_done",
        "what is gone counts as done",
        (
            (
                STORE,
                "        except FileNotFoundError:\n            return None\n",
                "        except ZeroDivisionError:\n            pass\n",
            ),
        ),
    ),
    Guard(
        "34 a model that is removed while it is read",
        f"{PROCESSES}test_what_is_removed_while_it_is_read_is_not_there",
        "a look at the folder after its files",
        ((STORED_MODEL, "        path.stat()  # not if it was removed meanwhile\n", "        pass\n"),),
        "files",
    ),
    Guard(
        "34 a model that cannot be deleted",
        f"{PROCESSES}test_a_model_that_cannot_be_deleted_is_said_and_stays",
        "eviction goes on with the next one",
        ((EVICTION, "except (OSError, CacheLockedError) as error:", "except ZeroDivisionError as error:"),),
    ),
    Guard(
        "a pin and a removal",
        f"{PROCESSES}test_pinning_a_model_that_was_just_removed_does_not_bring_it_back",
        "a record is only written beside its model, under the lock for changes",
        (
            (
                STORE,
                "            if not model.path.is_dir():\n                return None\n",
                "            model.path.mkdir(exist_ok=True)\n",
            ),
        ),
    ),
    Guard(
        "a removal and a pin",
        f"{PROCESSES}test_a_model_that_was_just_pinned_is_not_removed",
        "the record is read again under the lock",
        ((STORE, "if current and current.pinned:", "if False:"),),
    ),
    Guard(
        "a model that is hashed under its exclusive lock",
        f"{PROCESSES}test_a_model_can_be_opened_while_it_is_hashed",
        "hashing shares the lock",
        ((STORE, "    with model.hold():\n", "    with model.claim():\n"),),
    ),
    Guard(
        "a repair that replaces a good model",
        f"{PROCESSES}test_a_model_that_was_replaced_before_the_lock_was_taken_stays",
        "only what was found damaged is replaced",
        ((STORE, "if find_version(path) == version and (", "if ("),),
    ),
    Guard(
        "a lock that is kept for long",
        f"{PROCESSES}test_a_lock_for_changes_that_is_kept",
        "an error that names the lock",
        ((STORED_MODEL, "locks.exclusive(path, LOCK_TIMEOUT_S)", "locks.try_exclusive(path)"),),
    ),
    Guard(
        "a file system that refuses locks",
        f"{ACCESS}test_a_file_system_that_refuses_locks",
        "a model is opened without a lock, and not removed",
        (
            (
                STORED_MODEL,
                "_REFUSALS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)",
                "_REFUSALS = ()",
            ),
        ),
    ),
    Guard(
        "a root that is a file, a FIFO, a loop",
        f"{ACCESS}test_a_root_that_is_no_folder_is_said",
        "only what does not exist is empty",
        (
            (
                FOLDERS,
                "    except FileNotFoundError:\n        if any(",
                "    except OSError:\n        if False and any(",
            ),
        ),
    ),
    Guard(
        "a record that is a FIFO",
        f"{ACCESS}test_a_record_that_is_no_file_is_said_and_not_waited_for",
        "files are opened without waiting, and must be regular",
        ((FILES, "flags | os.O_NONBLOCK", "flags"),),
        "FIFO",
    ),
    Guard(
        "another user's model",
        f"{ACCESS}test_a_reader_keeps_the_owner_from_removing",
        "a lock that may only be read is held too",
        (
            (
                CACHE_LOCKS,
                "            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)",
                "            raise error",
            ),
        ),
    ),
    Guard(
        "a model that may not be read",
        f"{ACCESS}test_what_cannot_be_read_is_passed_over",
        "it is passed over with a warning",
        ((STORE, "                    _warn_passed_over(folder, error)", "                    raise"),),
    ),
    Guard(
        "a copy in the Hub's cache without hashes",
        f"{IN_HUB_CACHE}test_a_file_that_is_no_link_has_no_hash_and_is_not_used",
        "a file must be a link to a blob",
        (
            (HUB_CACHE, "        if blob.parent != blobs:", "        if False:"),
            (VERIFIED, "if actual == digest:", "if True:"),
        ),
    ),
    Guard(
        "a copy on another file system",
        f"{IN_HUB_CACHE}test_what_is_used_in_place_is_hashed_once",
        "what was verified is remembered",
        ((VERIFIED, "if known.get(str(path)) == state:", "if False:"),),
    ),
    Guard(
        "10 hostile ids and revisions",
        "test_model_cache.py::test_hostile_names_are_refused_before_any_path_is_made",
        "names are checked against the Hub's own rule",
        ((NAMES, 'if not _REPO_ID.fullmatch(repo_id) or ".." in repo_id or "--" in repo_id:', "if False:"),),
    ),
    Guard(
        "10 hostile file names",
        f"{DOWNLOAD}test_hostile_file_names_are_refused",
        "file names are checked, and only known ones asked for",
        ((FILES, "    for name in names:\n        check_file_name(name)\n    needed", "    needed"),),
    ),
    Guard(
        "10 hostile entries of the index",
        f"{DOWNLOAD}test_hostile_entries_of_the_index_are_refused",
        "an index may name weight files beside it",
        ((FILES, 'not isinstance(name, str) or "/" in name or not name.endswith(".safetensors")', "False"),),
    ),
    Guard(
        "12 code, pickles, other formats",
        f"{DOWNLOAD}test_code_and_pickles_are_not_even_asked_for",
        "a list of the names that are allowed",
        ((FILES, "filter(kind_of(names).needed.fullmatch, names)", "names"),),
    ),
    Guard(
        "13 malformed safetensors, downloaded",
        f"{IN_STORE}test_weights_that_are_cut_off_or_garbage",
        "a header must fit its file, and a bound",
        ((FILES, "if not 2 <= header <= min(size - 8, _LONGEST_HEADER):", "if False:"),),
    ),
    Guard(
        "13 malformed safetensors, loaded",
        "test_malformed_weights.py::test_malformed_weights_are_refused",
        "safetensors' own check, before MLX reads anything",
        (("akidb_mlx/checkpoint/tensors.py", "except (OSError, SafetensorError) as error", "except OSError as error"),),
    ),
    Guard(
        "14 weights that are not finite",
        "test_checkpoint.py::test_weights_that_are_not_finite_are_refused",
        "a self-test at load",
        (("akidb_mlx/backends/mlx/model.py", "if not np.isfinite(", "if False and np.isfinite("),),
    ),
    Guard(
        "14 a row that is no vector",
        "test_vectors.py::test_a_row_that_is_no_vector_fails_its_text",
        "every row is looked at",
        (("akidb_mlx/vectors.py", "if not sound.all():", "if False:"),),
    ),
    Guard(
        "15 missing, extra and misshapen tensors",
        "test_checkpoint.py::test_tensors_that_do_not_fit_are_named",
        "problems are gathered and refused before anything is loaded",
        (("akidb_mlx/backends/mlx/weights.py", "        if problems:", "        if False:"),),
    ),
    Guard(
        "17 lone surrogates",
        "test_service.py::test_a_bad_text_is_named",
        "texts are encoded before the tokenizer sees them",
        (("akidb_mlx/texts.py", "        text.encode()", "        text.encode(errors='replace')"),),
    ),
    Guard(
        "19 one text fails the forward pass",
        "test_engine.py::test_the_text_at_fault_is_found_in_its_batch",
        "the batch is halved",
        ((STEPS, "if error is not None and batch.size == 1:", "if error is not None:"),),
    ),
    Guard(
        "19 the owner thread dies",
        "test_engine.py::test_an_owner_thread_that_dies_fails_what_waits_and_is_replaced_once",
        "it is replaced once",
        (
            (
                ENGINE,
                "return life.was_ready and self._restarts < _RESTARTS",
                "return False and self._restarts < _RESTARTS",
            ),
        ),
    ),
    Guard(
        "20 more than can be answered",
        "test_engine.py::test_beyond_the_bound_calls_are_refused_at_once",
        "the queue is bounded",
        ((QUEUE, "            if self._is_full(request.expected_tokens):\n    ", "            if False:\n    "),),
    ),
    Guard(
        "20 cancelled work",
        "test_engine.py::test_a_cancelled_call_frees_its_place_and_never_runs",
        "what waits of it is dropped",
        ((QUEUE, "                self._turns.remove(request)\n            request.release()\n", ""),),
    ),
    Guard(
        "21 a forward pass that hangs",
        "test_engine.py::test_a_hang_is_noticed_and_starts_no_second_thread",
        "health looks at when the step began",
        ((ENGINE, "if running > self._limits.stuck_after_s:", "if False:"),),
    ),
    Guard(
        "22 fork after load",
        "test_engine.py::test_a_forked_child_gets_a_clear_error",
        "a child is marked",
        (("akidb_mlx/runtime/process.py", "os.register_at_fork(after_in_child=_mark_forked)", "pass"),),
    ),
    Guard(
        "23 exit with calls pending",
        "test_engine.py::test_a_process_ends_with_calls_pending",
        "engines are closed before threads are joined",
        (("akidb_mlx/runtime/process.py", "threading._register_atexit(close_all)", "pass"),),
    ),
    Guard(
        "30 a call ends while it is admitted",
        f"{LIVES}test_a_call_that_ends_while_it_is_admitted_gives_its_own_future",
        "a call keeps its own future, done or not",
        (
            (
                LIFE,
                "        self.future: Future[Any] = request.future\n",
                "        self.future: Future[Any] = request.future\n        (over := Future()).set_result(None)\n"
                "        self.future.add_done_callback(lambda _: setattr(self, 'future', over))\n",
            ),
        ),
    ),
    Guard(
        "30 two lives of an engine",
        f"{LIVES}test_a_life_that_ends_late_leaves_the_next_one_alone",
        "a life has a queue of its own",
        (
            (
                ENGINE,
                "                self._life = life\n",
                "                life.queue = dead.queue\n                self._life = life\n",
            ),
        ),
    ),
    Guard(
        "30 a restart while closing",
        f"{LIVES}test_close_during_a_restart_closes_the_new_life",
        "a look after the new life is there",
        ((ENGINE, "if self._stopped:  # meanwhile", "if False:  # meanwhile"),),
    ),
    Guard(
        "30 a done-callback that raises",
        f"{LIVES}test_a_callback_that_raises_harms_nobody",
        "what a callback raises is logged",
        ((REQUESTS, "if isinstance(error, KeyboardInterrupt) and not on_owner_thread():", "if True:"),),
        "SystemExit",
    ),
    Guard(
        "31 a done-callback that waits",
        f"{LIVES}test_a_callback_that_embeds_with_its_own_service_gets_an_error_at_once",
        "no wait on an owner thread",
        (("akidb_mlx/embedder.py", "        check_may_wait()\n", ""),),
    ),
    Guard(
        "31 a done-callback that resubmits",
        f"{LIVES}test_a_callback_that_resubmits_does_not_restart_the_engine_from_its_own_end",
        "no restart from an owner thread",
        ((ENGINE, "self._replaceable(life) and not on_owner_thread():", "self._replaceable(life):"),),
    ),
    Guard(
        "31 a signal handler",
        f"{REENTRANCY}test_a_signal_handler_may_call_the_service",
        "no lock is waited for by the thread that holds it",
        ((LOCKS, "    if this in entered:\n        raise", "    if False:\n        raise"),),
        "embed",
    ),
    Guard(
        "31 a future whose lock is held",
        f"{REENTRANCY}test_a_future_whose_lock_is_held_does_not_stop_other_calls",
        "it is resolved on another thread",
        ((REQUESTS, "future._condition.acquire(timeout=_LOCK_TIMEOUT_S)", "future._condition.acquire()"),),
    ),
    Guard(
        "31 a drain that interrupts a call",
        f"{REENTRANCY}test_draining_does_not_wait_for_the_call_that_it_interrupts",
        "the threads that feed a call are known",
        ((ENGINE, "if get_ident() in self._life.feeders:", "if False:"),),
    ),
    Guard(
        "31 a count that interrupts a count",
        f"{REENTRANCY}test_metrics_lose_nothing_that_interrupts_a_count",
        "changes wait in a queue while one is applied",
        (("akidb_mlx/engine/metrics.py", "        self._changes.append(change)\n", "        change()\n"),),
    ),
    Guard(
        "31 a collected service",
        f"{REENTRANCY}test_cleaning_up_after_a_collected_object_does_not_wait_on_the_collectors_thread",
        "a thread for finalizers",
        (
            (
                "akidb_mlx/runtime/finalizers.py",
                "weakref.finalize(collected, _pending.put, clean_up)",
                "weakref.finalize(collected, clean_up)",
            ),
        ),
    ),
    Guard(
        "32 a deadline while a long text is tokenised",
        f"{DEADLINES}test_a_caller_leaves_in_time_while_a_long_text_is_tokenised",
        "the caller leaves the tokenising thread",
        (("akidb_mlx/runtime/abandonment.py", "if not done.wait(deadline.left()):", "if not done.wait():"),),
    ),
    Guard(
        "32 several deadlines while long texts are tokenised",
        f"{DEADLINES}test_many_callers_at_once_abandon_one_tokenising",
        "a caller with a deadline waits for one that was left",
        ((TOKENIZER, "self._abandoned is not None and not self._abandoned.wait(0)", "False"),),
    ),
    Guard(
        "32 tokenising that nobody waits for",
        f"{DEADLINES}test_an_abandoned_tokenising_holds_up_nobody",
        "the tokenizer is left to it, and another one is loaded",
        ((TOKENIZER, "self._tokenizer, self._abandoned = None, done", "self._abandoned = done"),),
    ),
    Guard(
        "32 a deadline while the model is loaded again",
        f"{DEADLINES}test_the_deadline_covers_loading_again",
        "the wait for the model is bounded",
        ((LIFE, "wait_until_loaded(self._request.deadline.left())", "wait_until_loaded()"),),
    ),
    Guard(
        "33 waiting for the device",
        f"{LIVES}test_waiting_for_the_device_is_neither_hanging_nor_computing",
        "the clock starts when the device is held",
        ((STEPS, "        asked = time.monotonic()\n", "        asked = self.computing_since = time.monotonic()\n"),),
    ),
    Guard(
        "33 building a model while the device is held",
        "test_loading.py::test_the_device_is_held_for_evaluation_only",
        "only evaluation takes the device",
        (
            (
                "akidb_mlx/backends/mlx/model.py",
                "        weights.check_complete()\n",
                "        with device_lock:\n            weights.check_complete()\n",
            ),
        ),
    ),
    Guard(
        "33 evaluating weights while another model has the device",
        "test_loading.py::test_the_device_is_held_for_evaluation_only",
        "evaluation takes the device",
        ((TURNS, "        with device_lock:\n", "        if True:\n"),),
    ),
    Guard(
        "33 all weights in one turn on the device",
        "test_loading.py::test_another_model_runs_between_two_turns",
        "turns of a bounded number of bytes",
        ((TURNS, "_groups(arrays, _TURN_BYTES)", "[list(arrays)]"),),
    ),
    Guard(
        "33 weights that are read later",
        "test_loading.py::test_every_weight_is_evaluated_before_the_trial",
        "the reader knows every array that it handed out",
        (
            (
                "akidb_mlx/backends/mlx/weights.py",
                "return Embedding(self._hand_out(table))",
                "return Embedding(table)",
            ),
        ),
        case="4bit",
    ),
    Guard(
        "38 a pass that hangs, closed twice",
        f"{LIVES}test_closing_waits_once",
        "one moment for all calls of close()",
        (("akidb_mlx/runtime/process.py", "        if self._close_by is None:\n", "        if True:\n"),),
    ),
    Guard(
        "38 several models at exit",
        f"{LIVES}test_all_models_are_stopped_side_by_side_under_one_bound",
        "all are asked to end before one is waited for",
        (
            (
                "akidb_mlx/runtime/process.py",
                "        owner.stop()\n    for owner in owners:\n",
                "        owner.stop()\n",
            ),
        ),
    ),
    Guard(
        "the owner thread while a queue is drained",
        f"{LIVES}test_draining_does_not_spin_while_a_call_is_tokenised",
        "it sleeps until the queue is finished",
        ((QUEUE, "not self._turns and not self.finished\n", "not self._turns and not self.closed\n"),),
    ),
    Guard(
        "a refused text in the metrics",
        f"{LIVES}test_a_refused_text_counts_as_failed",
        "the call fails with the text's error",
        (("akidb_mlx/service.py", "            opened.fail(error)\n", "            opened.cancel()\n"),),
    ),
    Guard(
        "a message that spells a control token",
        "test_language_model.py::test_a_message_never_becomes_a_control_token",
        "a space is put into it",
        (("akidb_mlx/summarization/chat.py", "while spans := self._control_spans(text):", "while spans := ():"),),
    ),
)


def main() -> int:
    words = sys.argv[1:]
    if words == ["--table"]:
        print("| fault | test | guard that it was tried against |\n| --- | --- | --- |")
        for guard in GUARDS:
            print(f"| {guard.fault} | `{guard.test}` | {guard.guard} |")
        return 0
    chosen = [g for g in GUARDS if not words or any(word in f"{g.fault} {g.test}" for word in words)]
    with ThreadPoolExecutor(2) as pool:
        missed = 0
        for guard, problem in zip(chosen, pool.map(try_without, chosen), strict=True):
            missed += problem is not None
            print(f"{'MISSED' if problem else 'caught'}  {guard.fault}: {problem or guard.test}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} guards cannot be taken out unnoticed")
    return 1 if missed else 0


def try_without(guard: Guard) -> str | None:
    """Return what is wrong with a guard's tests: None if they pass with it, and fail or hang without it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, copy / name)
        passed = run(guard, copy)
        if passed.returncode != 0:
            return f"fails as it is: {passed.stdout[-500:]}"
        for name, old, new in guard.changes:
            text = (copy / name).read_text(encoding="utf-8")
            if text.count(old) != 1:
                return f"{name} holds {old!r} {text.count(old)} times"
            (copy / name).write_text(text.replace(old, new), encoding="utf-8")
        try:
            failed = run(guard, copy)
        except subprocess.TimeoutExpired:
            return None  # it hangs without
        if failed.returncode != 1:
            return f"passes without: {guard.guard} (pytest ended with {failed.returncode})"
    return None


def run(guard: Guard, folder: Path) -> subprocess.CompletedProcess[str]:
    name, _, function = guard.test.partition("::")
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", f"tests/{name}", "-k"]
    command.append(f"{function} and {guard.case}" if guard.case else function)
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


if __name__ == "__main__":
    sys.exit(main())

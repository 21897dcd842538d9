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
COPIED = ("akidb_mlx", "model_cache", "embedded_db", "tests", "benchmarks", "pyproject.toml")


@dataclass(frozen=True)
class Guard:
    """A piece of code that protects from a fault, and the code without it.

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


RETRIES, STORE, FILES, NAMES = (f"model_cache/{name}.py" for name in ("retries", "store", "files", "names"))
DOWNLOADER, RESOLVER, HUB_CACHE = (f"model_cache/{name}.py" for name in ("download", "resolver", "hub_cache"))
EXCHANGE, TRANSFER, DESCRIPTION = (f"model_cache/{name}.py" for name in ("exchange", "transfer", "description"))
SPACE, EVICTION = "model_cache/space.py", "model_cache/eviction.py"
CACHE_LOCKS, STORED_MODEL, EVICTION = (f"model_cache/{name}.py" for name in ("locks", "stored_model", "eviction"))
VERIFIED, RECORD, FOLDERS = (f"model_cache/{name}.py" for name in ("verified", "record", "folders"))
TURNS = "akidb_mlx/runtime/device_turns.py"
ENGINE, QUEUE, STEPS, LIFE = (
    f"akidb_mlx/engine/{name}.py" for name in ("engine", "request_queue", "step_loop", "life")
)
REQUESTS, TOKENIZER, SHARED_TOKENIZER, LOCKS = (
    "akidb_mlx/engine/requests.py",
    "akidb_mlx/checkpoint/tokenizer.py",
    "akidb_mlx/checkpoint/tokenization/shared.py",
    "akidb_mlx/runtime/locks.py",
)
LIVES, DEADLINES, REENTRANCY = "test_engine_lives.py::", "test_deadlines.py::", "test_reentrancy.py::"
REFUSED = "test_refused_models.py::"
DOWNLOAD, IN_STORE = "test_download.py::", "test_store.py::"
TERMINAL, ENVIRONMENT = "test_cli_terminal.py::", "test_cli_environment.py::"
STREAMS = "akidb_mlx/cli/streams.py"
NETWORK, IN_SPACE = "test_network.py::", "test_space.py::"
IN_HUB_CACHE, ACCESS, PROCESSES = "test_hub_cache.py::", "test_cache_access.py::", "test_cache_processes.py::"

PG_CONNECTION, PG_RANKING, PG_FILTERS, PG_TEXT, PG_SCHEMA = (
    f"embedded_db/postgres/{name}.py" for name in ("connection", "ranking", "filters", "text", "schema")
)
ON_POSTGRES = "test_db_postgres.py::"
GUARDS = (
    Guard(
        "1 a response body is cut off",
        f"{DOWNLOAD}test_a_download_goes_on_where_it_was_cut",
        "the download resumes with a Range request",
        ((TRANSFER, '{"Range": f"bytes={size}-"} if size else {}', "{}"),),
    ),
    Guard(
        "1 every response body is cut off",
        f"{DOWNLOAD}test_a_body_that_ends_early_every_time",
        "the download ends after six attempts without progress",
        ((TRANSFER, "        if size < file.size:\n            raise", "        if False:\n            raise"),),
    ),
    Guard(
        "2 right size, wrong bytes",
        f"{DOWNLOAD}test_wrong_bytes_twice_are_refused_by_name",
        "the downloaded bytes are compared with the SHA-256",
        ((TRANSFER, "            if file.is_at(part):", "            if True:"),),
    ),
    Guard(
        "2 wrong bytes, once",
        f"{DOWNLOAD}test_a_failure_that_passes",
        "the file is downloaded a second time",
        ((TRANSFER, "for _ in range(2):", "for _ in range(1):"),),
        "flip",
    ),
    Guard(
        "3 status 500, 503 or 429",
        f"{DOWNLOAD}test_a_failure_that_passes",
        "transient errors are retried",
        ((RETRIES, "return status in (408, 429) or status >= 500", "return False"),),
        "status",
    ),
    Guard(
        "3 connection reset",
        f"{DOWNLOAD}test_a_failure_that_passes",
        "transient errors are retried",
        ((RETRIES, "return isinstance(error, (HTTPError, OSError))", "return False"),),
        "reset",
    ),
    Guard(
        "3 the Hub falls silent",
        f"{DOWNLOAD}test_a_hub_that_falls_silent",
        "each read has a timeout",
        ((EXCHANGE, "timeout=min(constants.HF_HUB_DOWNLOAD_TIMEOUT, timeout)", "timeout=None"),),
    ),
    Guard(
        "3 a response that trickles without end",
        f"{DOWNLOAD}test_a_download_that_would_never_end",
        "the overall deadline is checked at every chunk",
        ((EXCHANGE, "min(_STEP_TIMEOUT_S, time_left(self._deadline))", "_STEP_TIMEOUT_S"),),
    ),
    Guard(
        "3 the server ignores Range",
        f"{DOWNLOAD}test_a_range_that_is_ignored",
        "a status other than 206 starts the file again from the beginning",
        (
            (TRANSFER, "                if first != size:  # the", "                if False:  # the"),
            (TRANSFER, "                if first != size:\n", "                if False:\n"),
        ),
    ),
    Guard(
        "3 the Hub is down, the model is cached",
        f"{DOWNLOAD}test_a_cached_copy_serves_while_the_hub_is_down",
        "a complete cached model is used without a request",
        (
            (
                RESOLVER,
                "if intact := next((model for model in stored if not model.damaged), None):",
                "if intact := None:",
            ),
        ),
    ),
    Guard(
        "3 a body longer than declared",
        f"{DOWNLOAD}test_a_body_that_is_longer_than_declared_is_not_read_to_its_end",
        "reading stops at the declared length",
        ((TRANSFER, "if size > file.size:", "if False:"),),
    ),
    Guard(
        "4 redirect to another host",
        f"{DOWNLOAD}test_a_token_does_not_leave_its_host",
        "the session follows redirects itself and drops the token when the host changes",
        (
            (
                EXCHANGE,
                "            request = response.next_request\n",
                "            token = request.headers['Authorization']\n            request = response.next_request\n"
                "            request.headers['Authorization'] = token\n",
            ),
        ),
    ),
    Guard(
        "4 a gated model",
        f"{DOWNLOAD}test_a_gated_model_explains_itself",
        "statuses 401 and 403 are explained",
        ((RETRIES, "if isinstance(error, GatedRepoError) or status == 403:", "if False:"),),
    ),
    Guard(
        "5 kill -9 during a download",
        f"{DOWNLOAD}test_a_killed_download_leaves_nothing_that_misleads",
        "a model stays in a separate folder until it is complete; without a record, its files are checked",
        (
            (STORE, "        return folder / name\n", "        return self.root / repo.folder / commit\n"),
            (STORE, "(folder / name).mkdir(", "(self.root / repo.folder / commit).mkdir("),
            (STORE, "record.write(staged)\n", "record.write(staged)\n        return StoredModel(record, staged, ())\n"),
            (STORED_MODEL, "        if incomplete:\n", "        if False:\n"),
        ),
    ),
    Guard(
        "5 files that killed processes left behind",
        f"{IN_STORE}test_what_was_left_behind_goes_with_the_next_download",
        "the next download deletes them",
        ((STORE, "            self._clean_up(repo)\n", ""),),
    ),
    Guard(
        "6 too little disk space for a download",
        f"{DOWNLOAD}test_a_full_disk_is_noticed_before_the_download",
        "the bytes needed are compared with the bytes free before the download",
        ((SPACE, "        if plan.short:\n", "        if False:\n"),),
    ),
    Guard(
        "6 the disk fills up during a download",
        f"{IN_STORE}test_a_disk_that_fills_up_during_a_download",
        "a disk error is not retried",
        ((RETRIES, "error.errno in (errno.ENOSPC, ", "error.errno in ("),),
    ),
    Guard(
        "7 sixteen processes start with an empty cache",
        f"{DOWNLOAD}test_many_processes_start_cold",
        "one lock surrounds the download",
        ((STORE, 'with locks.exclusive(self.root / repo.folder / "download.lock", timeout):', "if True:"),),
    ),
    Guard(
        "7 a file system whose locks do nothing",
        f"{IN_STORE}test_where_locks_do_nothing_each_download_has_a_folder_of_its_own_and_the_first_wins",
        "the lock is tried out first; where it has no effect, each process has a folder of its own",
        ((STORE, "if new or not locks.are_enforced(folder):", "if new:"),),
    ),
    Guard(
        "8 eviction while another process uses the model",
        f"{DOWNLOAD}test_what_is_open_in_another_process_stays",
        "removal needs the exclusive lock",
        (
            (STORE, '            if not claimed:\n                return "in use"\n', ""),
            (STORED_MODEL, "return locks.is_held(self.lock)", "return False"),
        ),
    ),
    Guard(
        "8 eviction while a service uses the model",
        "test_service.py::test_a_service_keeps_its_model_from_being_removed",
        "a service holds the lock until it is closed",
        (("akidb_mlx/resolve.py", "resources.enter_context(cache.acquire(record", "(cache.ensure(record"),),
    ),
    Guard(
        "8 removal between finding and opening a model",
        f"{IN_STORE}test_a_model_that_goes_between_finding_and_opening_is_looked_for_again",
        "the folder is checked again once the lock is held",
        ((STORED_MODEL, "yield self.path.is_dir()", "yield True"),),
    ),
    Guard(
        "9 broken index",
        f"{IN_STORE}test_an_index_that_is_garbage",
        "every defect of an index gives the same error",
        (
            (
                FILES,
                '["weight_map"].values())\n    except (OSError, ValueError, KeyError, TypeError, A',
                '["weight_map"].values())\n    except (ZeroDivisionError, A',
            ),
        ),
    ),
    Guard(
        "9 empty ref in the Hub's cache",
        f"{IN_HUB_CACHE}test_a_copy_that_was_never_complete_is_not_used",
        "a copy that huggingface_hub does not find is not used",
        (
            (HUB_CACHE, "except (FileNotFoundError, NotADirectoryError, ValueError)", "except ZeroDivisionError"),
            (HUB_CACHE, "except OSError", "except ZeroDivisionError"),
        ),
    ),
    Guard(
        "9 missing or cut-off file",
        f"{DOWNLOAD}test_a_damaged_file_is_fetched_again_once",
        "file sizes are compared with the record",
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
        "the record is rebuilt from the files",
        ((STORED_MODEL, "CacheRecord.read(path) or _rebuild_record(path)", "CacheRecord.read(path)"),),
    ),
    Guard(
        "9 read-only cache",
        f"{IN_STORE}test_a_cache_that_cannot_be_written_still_serves",
        "a model that cannot be locked is opened all the same",
        ((CACHE_LOCKS, "FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)", "FORBIDDEN = ()"),),
    ),
    Guard(
        "9 damaged copy in the Hub's cache",
        f"{DOWNLOAD}test_a_damaged_copy_in_the_hubs_cache_is_not_used",
        "files are compared with the hashes in their blobs' names",
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
        "file names are checked, and only known ones are requested",
        ((FILES, "    for name in names:\n        check_file_name(name)\n    needed", "    needed"),),
    ),
    Guard(
        "10 hostile entries of the index",
        f"{DOWNLOAD}test_hostile_entries_of_the_index_are_refused",
        "an index may only name weight files in its own folder",
        ((FILES, 'if not isinstance(name, str) or "/" in name or len(name) > 255 or', "if False and"),),
    ),
    Guard(
        "12 code, pickles, other formats",
        f"{DOWNLOAD}test_code_and_pickles_are_not_even_asked_for",
        "only file names on a list are requested",
        ((FILES, "filter(kind_of(names).needs, names)", "names"),),
    ),
    Guard(
        "13 malformed safetensors, downloaded",
        f"{IN_STORE}test_weights_that_are_cut_off_or_garbage",
        "the header must fit in the file and be within a bound",
        ((FILES, "if not 2 <= header <= min(size - 8, _LONGEST_HEADER):", "if False:"),),
    ),
    Guard(
        "13 malformed safetensors, loaded",
        "test_malformed_weights.py::test_malformed_weights_are_refused",
        "safetensors checks the file before MLX reads it",
        (("akidb_mlx/checkpoint/tensors.py", "except (OSError, SafetensorError) as error", "except OSError as error"),),
    ),
    Guard(
        "14 weights that are not finite",
        "test_checkpoint.py::test_weights_that_are_not_finite_are_refused",
        "a self-test runs when the model is loaded",
        (("akidb_mlx/backends/mlx/model.py", "if not np.isfinite(", "if False and np.isfinite("),),
    ),
    Guard(
        "14 a row that is not a valid vector",
        "test_vectors.py::test_a_row_that_is_no_vector_fails_its_text",
        "every row is checked",
        (("akidb_mlx/vectors.py", "if not sound.all():", "if False:"),),
    ),
    Guard(
        "15 missing, extra and misshapen tensors",
        "test_checkpoint.py::test_tensors_that_do_not_fit_are_named",
        "all problems are collected and refused before anything is loaded",
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
        "the batch is halved until that text is found",
        ((STEPS, "        elif batch.size > 1:", "        elif False:"),),
    ),
    Guard(
        "19 a failure of the device while the next step is handed over",
        "test_engine.py::test_a_failure_of_the_device_that_passes_fails_no_call",
        "an error voids every step in flight",
        ((STEPS, "if any(step.failed for step in in_flight) or not", "if running.failed or not"),),
    ),
    Guard(
        "19 the owner thread dies",
        "test_engine.py::test_an_owner_thread_that_dies_fails_what_waits_and_is_replaced_once",
        "the thread is replaced once",
        (
            (
                ENGINE,
                "return life.was_ready and self._restarts < _RESTARTS",
                "return False and self._restarts < _RESTARTS",
            ),
        ),
    ),
    Guard(
        "20 more calls than can be answered",
        "test_engine.py::test_beyond_the_bound_calls_are_refused_at_once",
        "the queue is bounded",
        ((QUEUE, "            if self._is_full(request.expected_tokens):\n    ", "            if False:\n    "),),
    ),
    Guard(
        "20 cancelled work",
        "test_engine.py::test_a_cancelled_call_frees_its_place_and_never_runs",
        "what still waits in the queue is dropped",
        ((QUEUE, "                self._leave(request)\n            request.release()\n", ""),),
    ),
    Guard(
        "21 a forward pass that hangs",
        "test_engine.py::test_a_hang_is_noticed_and_starts_no_second_thread",
        "the health check looks at when the step began",
        ((ENGINE, "if running > self._limits.stuck_after_s:", "if False:"),),
    ),
    Guard(
        "22 fork after load",
        "test_engine.py::test_a_forked_child_gets_a_clear_error",
        "the child process is marked",
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
        "each life has a queue of its own",
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
        "the engine checks for a close once the new life is there",
        ((ENGINE, "if self._stopped:  # meanwhile", "if False:  # meanwhile"),),
    ),
    Guard(
        "30 a done-callback that raises",
        f"{LIVES}test_a_callback_that_raises_harms_nobody",
        "the exception is logged",
        ((REQUESTS, "if isinstance(error, KeyboardInterrupt) and not on_owner_thread():", "if True:"),),
        "SystemExit",
    ),
    Guard(
        "31 a done-callback that waits",
        f"{LIVES}test_a_callback_that_embeds_with_its_own_service_gets_an_error_at_once",
        "an owner thread refuses to wait",
        (("akidb_mlx/embedder.py", "    check_may_wait()\n", ""),),
    ),
    Guard(
        "31 a done-callback that resubmits",
        f"{LIVES}test_a_callback_that_resubmits_does_not_restart_the_engine_from_its_own_end",
        "an owner thread does not restart the engine",
        ((ENGINE, "self._replaceable(life) and not on_owner_thread():", "self._replaceable(life):"),),
    ),
    Guard(
        "31 a signal handler",
        f"{REENTRANCY}test_a_signal_handler_may_call_the_service",
        "a thread does not wait for a lock that it holds",
        ((LOCKS, "    if this in entered:\n        raise", "    if False:\n        raise"),),
        "embed",
    ),
    Guard(
        "31 a future whose lock is held",
        f"{REENTRANCY}test_a_future_whose_lock_is_held_does_not_stop_other_calls",
        "the future is resolved on another thread",
        ((REQUESTS, "future._condition.acquire(timeout=_LOCK_TIMEOUT_S)", "future._condition.acquire()"),),
    ),
    Guard(
        "31 a drain that interrupts a call",
        f"{REENTRANCY}test_draining_does_not_wait_for_the_call_that_it_interrupts",
        "the engine knows which threads are feeding a call",
        ((ENGINE, "if get_ident() in self._life.feeders:", "if False:"),),
    ),
    Guard(
        "31 a count that interrupts a count",
        f"{REENTRANCY}test_metrics_lose_nothing_that_interrupts_a_count",
        "a change waits in a queue while another one is applied",
        (("akidb_mlx/engine/metrics.py", "        self._changes.append(change)\n", "        change()\n"),),
    ),
    Guard(
        "31 a garbage-collected service",
        f"{REENTRANCY}test_cleaning_up_after_a_collected_object_does_not_wait_on_the_collectors_thread",
        "finalizers run on a thread of their own",
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
        "the caller stops waiting for the tokenising thread",
        (("akidb_mlx/runtime/abandonment.py", "if not done.wait(deadline.left()):", "if not done.wait():"),),
    ),
    Guard(
        "32 several deadlines while long texts are tokenised",
        f"{DEADLINES}test_many_callers_at_once_abandon_one_tokenising",
        "a caller with a deadline waits until the abandoned tokenising ends",
        ((SHARED_TOKENIZER, "self._abandoned is not None and not self._abandoned.wait(0)", "False"),),
    ),
    Guard(
        "32 tokenising that nobody waits for",
        f"{DEADLINES}test_an_abandoned_tokenising_holds_up_nobody",
        "it keeps its tokenizer, and another one is loaded for later calls",
        ((SHARED_TOKENIZER, "self._tokenizer, self._abandoned = None, done", "self._abandoned = done"),),
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
        "only evaluation holds the device",
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
        "evaluation waits for the device",
        ((TURNS, "        with device_lock:\n", "        if True:\n"),),
    ),
    Guard(
        "33 all weights in one turn on the device",
        "test_loading.py::test_another_model_runs_between_two_turns",
        "a turn evaluates a bounded number of bytes",
        ((TURNS, "_groups(arrays, _TURN_BYTES)", "[list(arrays)]"),),
    ),
    Guard(
        "33 weights that are read later",
        "test_loading.py::test_every_weight_is_evaluated_before_the_trial",
        "the reader keeps track of every array that it handed out",
        (
            (
                "akidb_mlx/backends/mlx/weights.py",
                "return self._embedding(name, self._hand_out(table))",
                "return self._embedding(name, table)",
            ),
        ),
        case="4bit",
    ),
    Guard(
        "38 a pass that hangs, closed twice",
        f"{LIVES}test_closing_waits_once",
        "all calls of close() share one deadline",
        (("akidb_mlx/runtime/process.py", "        if self._close_by is None:\n", "        if True:\n"),),
    ),
    Guard(
        "38 several models at exit",
        f"{LIVES}test_all_models_are_stopped_side_by_side_under_one_bound",
        "all models are asked to end before one is waited for",
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
        "a key of a checkpoint that nobody knows",
        f"{REFUSED}test_a_key_of_the_configuration",
        "keys are in a list, empty, or refused",
        (("akidb_mlx/checkpoint/known_keys.py", " and not is_empty(value):", " and False:"),),
        "scale_residual",
    ),
    Guard(
        "a default that is not the reference's",
        "test_dialects.py::test_a_dialect_is_read_as_the_reference_reads_it",
        "transformers' default",
        (("akidb_mlx/checkpoint/architectures/qwen2.py", '{"full_attention": 1e4}', '{"full_attention": 1e6}'),),
        "without-theta",
    ),
    Guard(
        "a model with a head",
        f"{REFUSED}test_a_model_with_a_head",
        "tensors of heads are refused by name",
        (("akidb_mlx/checkpoint/checkpoint.py", "    check_heads(tensors)\n", ""),),
    ),
    Guard(
        "a chat model that is pooled",
        f"{REFUSED}test_a_causal_model_without_a_sign_of_an_embedder",
        "some sign of an embedding model is asked for",
        (("akidb_mlx/service.py", "                check_is_embedder(checkpoint)\n", "                pass\n"),),
    ),
    Guard(
        "a stale index of weights",
        f"{REFUSED}test_cache_and_loader_read_the_same_weights",
        "one function says which weights are read",
        ((FILES, "if (folder / _WEIGHTS).is_file() or not", "if not"),),
    ),
    Guard(
        "a message that spells a control token",
        "test_language_model.py::test_a_message_never_becomes_a_control_token",
        "a space is inserted into it",
        (("akidb_mlx/summarization/chat.py", "while spans := self._control_spans(text):", "while spans := ():"),),
    ),
    Guard(
        "26 ids of a tokenizer beyond the model's table",
        "test_tokenizer_ids.py::test_ids_beyond_the_table_are_refused_at_load",
        "each is compared with the stored table's rows",
        (("akidb_mlx/checkpoint/tokenization/ids.py", "not 0 <= number < rows", "number < 0"),),
    ),
    Guard(
        "26 a text that spells a token beyond the table",
        "test_tokenizer_ids.py::test_the_text_is_named_that_spells_such_a_token",
        "the tokens of each text are compared with those that have no vector",
        ((TOKENIZER, "if not self._without_vector:", "if True:"),),
    ),
    Guard(
        "29 a text that is cut at its beginning",
        "test_tokenizer_classes.py::test_ids_are_those_that_transformers_gave",
        "truncation_side decides which end is kept",
        ((TOKENIZER, "if self.keeps_end else", "if False else"),),
    ),
    Guard(
        "29 a tokenizer.json that its class does not take as it is",
        "test_tokenizer_classes.py::test_ids_are_those_that_transformers_gave",
        "the class's own normaliser, pre-tokenizer and special tokens are built",
        (("akidb_mlx/checkpoint/tokenization/loading.py", "loaded if kind is None else", "loaded if True else"),),
    ),
    Guard(
        "30 a tokenizer.json that makes a terabyte of a letter",
        "test_tokenizer_bounds.py::test_a_tokenizer_that_makes_much_of_little_is_refused",
        "the growth is computed before anything runs",
        (("akidb_mlx/checkpoint/tokenization/growth.py", "if growth.most > _MAX_GROWTH:", "if False:"),),
        "doubling",
    ),
    Guard(
        "a message of several lines on standard error",
        f"{TERMINAL}test_an_argument_in_an_error",
        "what is reported is escaped, line feeds too",
        (("akidb_mlx/cli/output.py", "akidb-mlx: {escape(message)}", "akidb-mlx: {message}"),),
    ),
    Guard(
        "control characters from other code",
        f"{TERMINAL}test_what_other_code_writes",
        "the standard streams escape what anybody writes",
        ((STREAMS, "super().write(self._escaped(text))", "super().write(text)"),),
    ),
    Guard(
        "arguments in the encoding of the locale",
        f"{ENVIRONMENT}test_text_is_utf8_whatever_the_locale_says",
        "a start in Python's UTF-8 mode",
        (("akidb_mlx/cli/__init__.py", "    require_utf8()\n", ""),),
        "ASCII",
    ),
    Guard(
        "a cache that other users can write",
        f"{ENVIRONMENT}test_without_a_home_folder_models_go_where_this_user_alone_reaches",
        "the folder for temporary files is this user's alone",
        (("model_cache/config.py", " or found.st_mode & 0o077", ""),),
    ),
    Guard(
        "a settings file that is a pipe",
        f"{ENVIRONMENT}test_a_settings_file_that_is_none",
        "what is not a file is refused",
        (("akidb_mlx/settings.py", "if not stat.S_ISREG(found.st_mode) and", "if False and"),),
        "pipe",
    ),
    Guard(
        "34 a model that never fits",
        f"{IN_SPACE}test_what_can_never_fit_is_refused_before_anything_is_fetched",
        "the limit and the disk are looked at first",
        (
            (DOWNLOADER, "        space.check_limit()\n", ""),
            (DOWNLOADER, "        space.check_disk(sum(", "        max(0, sum("),
        ),
    ),
    Guard(
        "34 a model that does not come",
        f"{IN_SPACE}test_a_model_that_does_not_come_costs_no_other",
        "eviction just before the new model appears",
        ((DOWNLOADER, "        space.check_limit()\n", "        space.make_within_limit()\n"),),
    ),
    Guard(
        "34 a model that does not come, on a full disk",
        f"{IN_SPACE}test_on_a_full_disk_nothing_is_removed_before_the_first_bytes",
        "eviction when the first bytes have arrived",
        ((DOWNLOADER, "space.check_disk(sum(", "space.make_on_disk(sum("),),
    ),
    Guard(
        "34 models that share files",
        f"{IN_SPACE}test_bytes_that_another_model_shares_are_not_counted_as_free",
        "links are counted",
        ((EVICTION, " and found.st_nlink == 1:", ":"),),
    ),
    Guard(
        "34 a repair",
        f"{IN_SPACE}test_a_repair_costs_no_other_model",
        "the model that is replaced is not counted",
        ((SPACE, "plan(incoming=self._size, replaced=self._name)", "plan(incoming=self._size)"),),
    ),
    Guard(
        "35 answers that trickle",
        f"{NETWORK}test_a_trickle_ends_at_the_deadline",
        "the caller leaves the thread that reads",
        ((EXCHANGE, "min(_STEP_TIMEOUT_S, time_left(self._deadline))", "_STEP_TIMEOUT_S"),),
        "headers and description",
    ),
    Guard(
        "35 threads that are left",
        f"{NETWORK}test_a_trickle_ends_at_the_deadline",
        "their connection is closed",
        ((EXCHANGE, "            self._connection.close()\n", "            pass\n"),),
        "headers and description",
    ),
    Guard(
        "35 a connection that was used before",
        f"{NETWORK}test_a_trickle_ends_at_the_deadline",
        "one connection for each request",
        ((EXCHANGE, ', "Connection": "close"}', "}"),),
        "headers and file",
    ),
    Guard(
        "35 an endless redirect",
        f"{NETWORK}test_the_endless_body_of_a_redirect_is_not_read",
        "redirects are followed without their bodies",
        ((EXCHANGE, "follow_redirects=False", "follow_redirects=True"),),
        "api",
    ),
    Guard(
        "35 an endless error",
        f"{NETWORK}test_the_endless_body_of_an_error_is_not_read",
        "an error is made of the headers",
        (
            (
                EXCHANGE,
                "                yield response\n",
                "                response.read()\n                yield response\n",
            ),
        ),
    ),
    Guard(
        "35 an endless description",
        f"{NETWORK}test_an_endless_description",
        "a bound on its length",
        ((EXCHANGE, "if len(content) > max_bytes:", "if False:"),),
    ),
    Guard(
        "35 a gzip bomb",
        f"{NETWORK}test_what_is_compressed_is_refused_before_it_is_unpacked",
        "no encoding is accepted",
        ((EXCHANGE, 'if encoding not in ("", "identity"):', "if False:"),),
        "api",
    ),
    Guard(
        "35 wrong types",
        f"{NETWORK}test_a_field_of_a_wrong_kind",
        "a strict schema",
        ((DESCRIPTION, "ConfigDict(strict=True, frozen=True)", "ConfigDict(frozen=True)"),),
        "size",
    ),
    Guard(
        "35 files that are one on a disk that ignores case",
        f"{NETWORK}test_a_list_of_files_that_cannot_be",
        "names are compared without case",
        ((DESCRIPTION, "[name.casefold() for name in names]", "list(names)"),),
        "letters",
    ),
    Guard(
        "35 a range that was not asked for",
        f"{NETWORK}test_another_range_than_was_asked_for",
        "Content-Range is compared with the request",
        ((TRANSFER, "first = _first_byte(answer)", "first = size if answer.status == 206 else 0"),),
    ),
    Guard(
        "a null in place of a tokenizer's flag",
        "test_tokenizer_classes.py::test_a_flag_that_is_null_is_false",
        "a null is false, and not the default",
        (
            (
                "akidb_mlx/checkpoint/tokenization/classes.py",
                "bool(config.get(key, default))",
                "default if config.get(key) is None else config[key]",
            ),
        ),
    ),
    Guard(
        "a null in place of Gemma's is_causal",
        "test_refused_models.py::test_a_null_that_the_reference_takes_for_false_is_named",
        "only true is let through",
        (
            (
                "akidb_mlx/checkpoint/architectures/gemma3.py",
                '"is_causal": Only((True,)',
                '"is_causal": Only((None, True)',
            ),
        ),
    ),
    Guard(
        "texts with another prompt in one batch, where the prompt is not pooled",
        "test_modules.py::test_equal_tokens_with_another_prompt_are_another_text",
        "the number of tokens that are not pooled is part of the batch's key",
        (
            (
                "akidb_mlx/service.py",
                "BatchKey(prefix.tobytes(), unpooled, route)",
                "BatchKey(prefix.tobytes(), 0, route)",
            ),
        ),
    ),
    Guard(
        "a calibration on the texts of one call",
        "test_quantized.py::test_a_call_without_ranges_is_refused",
        "int8 without ranges is refused",
        (("akidb_mlx/options.py", "return check_ranges(output_dtype, ranges, size)", "return None"),),
    ),
    Guard(
        "a static model's text without tokens",
        "test_static.py::test_a_text_without_tokens_is_refused_by_index",
        "every text must have a token",
        (("akidb_mlx/checkpoint/static_tokenizer.py", "if not lengths.all():", "if False:"),),
    ),
    Guard(
        "a static model's unknown tokens",
        "test_static.py::test_unknown_words_are_left_out_by_model2vec_only",
        "model2vec leaves them out, after the cut",
        (("akidb_mlx/checkpoint/static_tokenizer.py", "if self._unknown is not None:  #", "if False:  #"),),
    ),
    Guard(
        "images' tokens in a text for EmbeddingGemma 2",
        "test_embedding_gemma2.py::test_placeholders_are_read_as_padding",
        "they are read as padding",
        (
            (
                "akidb_mlx/backends/mlx/encoders/embedding_gemma2.py",
                "self._without_placeholders(batch.ids)",
                "batch.ids",
            ),
        ),
    ),
    Guard(
        "token types of a pair",
        "test_reranker_goldens.py::test_scores_equal_the_references",
        "the tokens of the document are of the second type",
        (("akidb_mlx/backends/mlx/encoders/__init__.py", "if self.segments is None:", "if True:"),),
        "bert",
    ),
    Guard(
        "a text of an asymmetric model in the other tower's tokens",
        "test_towers.py::test_each_role_has_the_vectors_of_the_reference",
        "each route has the tokenizer of its own encoder",
        (("akidb_mlx/service.py", "self._tokenizers[route]", "next(iter(self._tokenizers.values()))"),),
    ),
    Guard(
        "padding beyond what the smaller of two towers takes",
        "test_towers.py::test_padding_never_lengthens_a_batch_beyond_its_tower",
        "it is cut off",
        (("akidb_mlx/backends/towers.py", "_fit(batches[one], tower)", "batches[one]"),),
    ),
    Guard(
        "a sparse vector that depends on the batch's padding",
        "test_sparse.py::test_a_text_has_the_same_vector_alone",
        "padding repeats a token of the text, which changes no maximum",
        (("akidb_mlx/backends/mlx/sparse.py", "mx.where(counts, hidden, hidden[:, :1])", "hidden"),),
    ),
    Guard(
        "a model of another kind, loaded as one of vectors",
        "test_sparse.py::test_other_classes_name_each_other",
        "the kind that the files name is compared",
        (("akidb_mlx/checkpoint/purpose.py", "if kind != wanted and", "if False and"),),
    ),
    Guard(
        "a marker that is cut into pieces",
        "test_multi_vector.py::test_a_marker_is_one_token",
        "markers become tokens of the vocabulary",
        (
            (
                "akidb_mlx/checkpoint/tokenization/loading.py",
                "add_markers(tokenizer, checkpoint.multi_vector.markers)",
                "pass",
            ),
        ),
    ),
    Guard(
        "a window that includes one token too many",
        "test_goldens.py::test_tiny_models_are_exact",
        "a causal layer sees the keys nearer than the window",
        (
            (
                "akidb_mlx/backends/mlx/encoders/windows.py",
                "(distance >= 0) & (distance < reach)",
                "(distance >= 0) & (distance <= reach)",
            ),
        ),
        "tiny-mistral",
    ),
    Guard(
        "a prefix that is shared although tokens see both sides",
        "test_prefixes.py::test_a_decoder_made_to_see_both_sides_shares_nothing",
        "only a causal encoder shares prefixes",
        (("akidb_mlx/backends/mlx/model.py", "and self._encoder.causal", ""),),
    ),
    Guard(
        "a library that prints among the answers of the protocol",
        "test_stdio.py::test_whatever_a_library_prints_is_no_answer",
        "standard output is standard error for everybody else",
        (("akidb_mlx/stdio/streams.py", "os.dup2(2, 1)", "pass"),),
    ),
    Guard(
        "a key that is guessed by the time of the comparison",
        "test_server_operation.py::test_every_key_is_compared_in_constant_time",
        "digests are compared by hmac",
        (("akidb_mlx/server/security.py", "hmac.compare_digest(given, digest)", "given == digest"),),
    ),
    Guard(
        "a client of the server that leaves",
        "test_server_operation.py::test_a_client_that_leaves_cancels_its_work",
        "a request's work is cancelled when its connection ends",
        (
            (
                "akidb_mlx/server/app.py",
                "return await _unless_disconnected(receive, endpoint.answer(state, body))",
                "return await endpoint.answer(state, body)",
            ),
        ),
    ),
    Guard(
        "more requests than the server takes",
        "test_server_operation.py::test_beyond_the_bound_requests_are_refused_at_once",
        "requests beyond the bound are refused",
        (
            (
                "akidb_mlx/server/app.py",
                'if method == "POST" and self._state.metrics.running > most:',
                "if False:",
            ),
        ),
    ),
    Guard(
        "a body of a request that does not end",
        "test_server_operation.py::test_a_connection_that_stalls_or_lies_is_closed",
        "a body has a time",
        (("akidb_mlx/server/body.py", "async with timeout(timeout_s):", "async with timeout(None):"),),
        "body",
    ),
    Guard(
        "a slow loris",
        "test_server_operation.py::test_a_client_that_trickles_is_closed",
        "a head has a time, from its first byte on",
        (
            (
                "akidb_mlx/server/serving.py",
                "self.loop.call_later(timeout_s, self.transport.close)",
                "self.loop.call_later(3600, self.transport.close)",
            ),
        ),
        "head",
    ),
    Guard(
        "the page that makes work of its own",
        "test_server_page.py::test_the_report_computes_nothing",
        "the report tells of the latest probe, and makes none",
        (("akidb_mlx/server/page.py", "state.models.last_readiness()", "await state.models.readiness()"),),
    ),
    Guard(
        "a parent that sends and does not read",
        "test_stdio.py::test_no_more_is_read_than_there_is_room_for",
        "no request is read while the window has no room",
        (("akidb_mlx/stdio/window.py", "while not self._has_room(size):", "while False:"),),
    ),
    Guard(
        "19 PostgreSQL: writers take turns",
        f"{ON_POSTGRES}test_another_writer_is_waited_for_and_then_named",
        "writers take turns",
        (
            (
                PG_CONNECTION,
                '            connection.execute("SELECT pg_advisory_xact_lock(%s)", [WRITER_LOCK])\n            yield',
                "            yield",
            ),
        ),
    ),
    Guard(
        "19 PostgreSQL: readers see one state",
        f"{ON_POSTGRES}test_a_reader_sees_one_state",
        "readers see one state",
        ((PG_CONNECTION, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", "BEGIN"),),
    ),
    Guard(
        "19 PostgreSQL: ended connections are replaced",
        f"{ON_POSTGRES}test_a_server_that_is_away_is_an_error_until_it_is_back",
        "ended connections are replaced",
        (
            (
                PG_CONNECTION,
                "                connection.close()\n            else:",
                "                raise\n            else:",
            ),
        ),
    ),
    Guard(
        "19 PostgreSQL: no connection is shared with a child",
        f"{ON_POSTGRES}test_a_child_that_was_forked_opens_its_own",
        "no connection is shared with a child",
        ((PG_CONNECTION, "if os.getpid() != self._process:", "if False:"),),
    ),
    Guard(
        "19 PostgreSQL: a password that is not escaped is not shown",
        f"{ON_POSTGRES}test_a_url_that_cannot_be_read_is_not_shown",
        "a password that is not escaped is not shown",
        (
            (
                PG_CONNECTION,
                'if not given or "@" in name + host or "/" in name or not re.fullmatch(r"[0-9,]*", port):',
                "if not given:",
            ),
        ),
    ),
    Guard(
        "19 PostgreSQL: ties by index",
        f"{ON_POSTGRES}test_an_index_is_not_asked_where_vectors_tie_or_are_gone",
        "ties by index",
        ((PG_RANKING, " or _ties_go_on(rows, most, wanted)", ""),),
    ),
    Guard(
        "19 PostgreSQL: short by index",
        f"{ON_POSTGRES}test_an_index_is_not_asked_where_vectors_tie_or_are_gone",
        "short by index",
        ((PG_RANKING, "if len(rows) < wanted or _ties", "if len(rows) >= most and _ties"),),
    ),
    Guard(
        "19 PostgreSQL: filters never by index",
        f"{ON_POSTGRES}test_an_index_serves_queries_without_filters_and_no_others",
        "filters never by index",
        ((PG_RANKING, "if where == ALL else None", "if True else None"),),
    ),
    Guard(
        "19 PostgreSQL: all digits of large floats",
        f"{ON_POSTGRES}test_properties_come_back_as_they_were",
        "all digits of large floats",
        ((PG_FILTERS, '_LARGE_FLOAT.sub(_all_digits, text) if "e+" in text else text', "text"),),
    ),
    Guard(
        "19 PostgreSQL: steps are no index of a list",
        f"{ON_POSTGRES}test_a_step_of_a_property_is_no_index_of_a_list",
        "steps are no index of a list",
        ((PG_FILTERS, "f\" -> {self._bind(step, 'text')}\"", "f\" #> ARRAY[{self._bind(step, 'text')}]\""),),
    ),
    Guard(
        "19 PostgreSQL: long words",
        f"{ON_POSTGRES}test_a_text_may_have_more_words_than_a_tsvector",
        "long words",
        ((PG_TEXT, "word[:_LONGEST_WORD] for", "word for"),),
    ),
    Guard(
        "19 PostgreSQL: too many words",
        f"{ON_POSTGRES}test_a_text_may_have_more_words_than_a_tsvector",
        "too many words",
        ((PG_TEXT, "            if total > _MOST_BYTES:\n                break\n", ""),),
    ),
    Guard(
        "19 PostgreSQL: other program's schema",
        f"{ON_POSTGRES}test_the_schema_of_another_program_is_refused",
        "other program's schema",
        ((PG_SCHEMA, "        if _value(connection, tables, SCHEMA):", "        if False:"),),
    ),
    Guard(
        "19 PostgreSQL: encoding",
        f"{ON_POSTGRES}test_an_encoding_without_all_characters_is_refused",
        "encoding",
        ((PG_SCHEMA, 'if encoding != "UTF8":', "if False:"),),
    ),
    Guard(
        "19 PostgreSQL: bytes order",
        f"{ON_POSTGRES}test_strings_are_ordered_by_their_bytes_in_any_collation",
        "bytes order",
        ((PG_SCHEMA, 'chat_id text COLLATE "C"', "chat_id text"),),
    ),
    Guard(
        "19 PostgreSQL: long labels",
        f"{ON_POSTGRES}test_a_long_label_is_an_entity",
        "long labels",
        ((PG_SCHEMA, "ON node USING hash ((properties", "ON node ((properties"),),
    ),
    Guard(
        "19 PostgreSQL: the server goes away while a batch is computed",
        f"{ON_POSTGRES}test_a_server_that_is_away_costs_a_message_no_attempt",
        "a lost connection is no fault of a message",
        (
            (
                "embedded_db/weaver.py",
                "    DatabaseBusyError,\n    DatabaseConnectionError,\n)\n",
                "    DatabaseBusyError,\n)\n",
            ),
        ),
    ),
    Guard(
        "two workers do one long batch for ever",
        "test_db_weaver.py::test_the_lease_of_a_batch_that_takes_long_is_renewed",
        "leases are renewed while a batch runs",
        (("embedded_db/weaver.py", "while not done.wait(self._lease_s / 3):", "while False:"),),
    ),
    Guard(
        "a late result is written a second time",
        "test_db_weaver.py::test_a_result_that_comes_after_the_lease_is_not_written",
        "a result is written only by the worker that holds the job",
        (
            (
                "embedded_db/jobs.py",
                "return [job for job in claimed if (job.key,) in kept]",
                "return list(claimed)",
            ),
        ),
    ),
    Guard(
        "a text that kills its process is tried for ever",
        "test_db_weaver.py::test_a_text_that_kills_its_process_is_given_up_in_the_end_and_takes_no_other_along",
        "attempts are counted at the claim",
        (("embedded_db/jobs.py", "attempts = attempts + 1", "attempts = attempts"),),
    ),
    Guard(
        "one claim holds too much text",
        "test_db_weaver.py::test_a_claim_is_bounded_by_characters",
        "a claim is bounded by characters",
        (("embedded_db/jobs.py", "(attempts or characters > BATCH_CHARACTERS)", "attempts"),),
    ),
    Guard(
        "a full disk or a closed model is charged to messages",
        "test_db_weaver.py::test_what_is_no_messages_fault_costs_no_attempt",
        "jobs that nobody could do are given back uncounted",
        (("embedded_db/jobs.py", "SET attempts = attempts - 1, ", "SET "),),
    ),
    Guard(
        "a link is drawn by an old vector",
        "test_db_activity.py::test_a_vector_that_changes_while_links_are_looked_for_is_not_linked_by_the_old_one",
        "links are drawn only by the vectors that answer",
        (
            (
                "embedded_db/links.py",
                "if changes.any_since(tx, [key for key, _ in nearest], seen):",
                "if False:",
            ),
        ),
    ),
    Guard(
        "a summary is of messages that are others by now",
        "test_db_activity.py::test_messages_that_change_while_they_are_summarised_are_summarised_again",
        "a summary is written only of the messages that it was made of",
        (("embedded_db/summaries.py", "if find_draft(tx, job) != draft:", "if False:"),),
    ),
    Guard(
        "a message that arrives during reembed has no vector",
        "test_db_reembed.py::test_what_changes_during_the_run_is_caught_up",
        "the last nodes are computed before the switch",
        (("embedded_db/reembed.py", "last = _remaining(tx, keys, -1, _LAST + 1)", "last = []"),),
    ),
    Guard(
        "reembed stores the vector of an old text",
        "test_db_reembed.py::test_what_changes_during_the_run_is_caught_up",
        "vectors are stored only of the present text",
        (("embedded_db/reembed.py", "if current.get(text.node_key) == text.content", "if text.node_key in current"),),
    ),
    Guard(
        "a query compares vectors of two models",
        "test_db_reembed.py::test_an_interrupted_run_goes_on_where_it_was",
        "the matrix is of one model",
        (("embedded_db/sqlite/matrix.py", "if model != self._model:", "if self._model is None:"),),
    ),
    Guard(
        "an exact reading that is another one",
        "test_selection_files.py::test_an_exact_reading_without_the_arrays_is_refused",
        "exact=True refuses other kinds",
        (("akidb_mlx/selection/selector.py", 'if exact and self.algorithm != "svm":', "if False:"),),
    ),
    Guard(
        "classes in another order",
        "test_selection.py::test_the_classes_of_an_exact_svm_are_in_their_own_order",
        "labels follow classes",
        (
            (
                "akidb_mlx/selection/exact_svm.py",
                'if arrays.has("classes") else model_names',
                "if False else model_names",
            ),
        ),
    ),
    Guard(
        "nesting beyond the bound",
        "test_selection_files.py::test_the_objects_and_lists_around_a_field_count_for_its_depth",
        "depth counts from the document",
        (("akidb_mlx/selection/json_fields.py", "self._depth + 2)", "1)"),),
    ),
    Guard(
        "a small file that takes much memory",
        "test_selection_files.py::test_reading_takes_at_most_sixteen_times_the_limit",
        "parts are counted before they are made",
        (("akidb_mlx/selection/json_text.py", "        _check_parts(marks, max_bytes)\n", ""),),
    ),
    Guard(
        "votes that overflow",
        "test_selection.py::test_sums_of_votes_that_overflow_are_refused",
        "sums must be finite",
        (("akidb_mlx/selection/knn.py", "if not np.isfinite(score):", "if False:"),),
    ),
    Guard(
        "a neighbour lost to rounding",
        "test_selection.py::test_no_neighbour_is_lost_to_the_rounding_of_the_estimate",
        "the bound of the estimate",
        (("akidb_mlx/selection/knn.py", "rounding = 8 *", "rounding = 0 *"),),
    ),
    Guard(
        "a text in two folds",
        "test_selection_training.py::test_a_text_is_in_one_fold_whatever_its_embeddings_and_categories",
        "folds are of texts",
        (
            (
                "akidb_mlx/selection/outcomes.py",
                "text_of = np.array([texts[one.query] for one in firsts])",
                "text_of = np.arange(len(firsts))",
            ),
        ),
    ),
    Guard(
        "speeds on two scales",
        "test_selection_training.py::test_an_evaluation_has_the_scale_of_speeds_of_the_training",
        "the scale of the file",
        (("akidb_mlx/selection/evaluation.py", "        latency_range=_latency_range(selector),\n", ""),),
    ),
    Guard(
        "a model downloaded for nothing",
        "test_selection_router.py::test_a_repository_of_a_model_has_no_selectors",
        "the list of files is asked for first",
        (("akidb_mlx/cli/route.py", "_check_holds_selector(name, cache.remote_files(name))", "pass"),),
    ),
    Guard(
        "a token in a traceback",
        "test_selection_router.py::test_a_token_is_in_no_traceback",
        "errors that may hold a token have no cause",
        (("model_cache/retries.py", "from (None if may_hold_token(error) else error)", "from error"),),
    ),
    Guard(
        "an API's answer without end",
        "test_remote_names.py::test_an_answer_without_end_is_not_read",
        "the bytes of an answer are bounded",
        (("akidb_mlx/remote/api.py", ', event_hooks={"response": [bound_answer]}', ""),),
    ),
    Guard(
        "an API that begins its answer anew in the middle of a summary",
        "test_remote_summaries.py::test_an_answer_that_ends_in_the_middle_is_an_error_and_is_not_begun_again",
        "a request is sent again until its first word only",
        (("akidb_mlx/remote/chat.py", "may_retry=lambda: not begun", "may_retry=lambda: True"),),
    ),
    Guard(
        "a GGUF file whose tensors are beyond its end",
        "test_gguf.py::test_a_file_that_is_cut_off_is_refused_wherever",
        "the bounds of every tensor are checked",
        (("akidb_mlx/checkpoint/gguf.py", "if begin + offset + size > len(self._content):", "if False:"),),
    ),
    Guard(
        "a conversion that lost a part of the model",
        "test_known_answers.py::test_a_broken_conversion_is_refused",
        "known answers are asked for at the load",
        (("akidb_mlx/service.py", "check_answers(self, answers)", "pass"),),
    ),
    Guard(
        "a quantised model half written",
        "test_quantization.py::test_a_failure_midway_leaves_nothing",
        "the folder is removed",
        (
            (
                "akidb_mlx/quantization/publishing.py",
                "    except BaseException:\n        shutil.rmtree(temporary, ignore_errors=True)\n",
                "    except BaseException:\n",
            ),
        ),
    ),
)


def main() -> int:
    words = sys.argv[1:]
    if words == ["--table"]:
        print("| fault | test | guard without which the test fails |\n| --- | --- | --- |")
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
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
            else:
                shutil.copy(ROOT / name, copy / name)
        passed = run(guard, copy)
        if passed.returncode != 0:
            return f"fails as it is, with status {passed.returncode}: {passed.stdout[-500:]}"
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

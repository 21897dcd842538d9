//! What the tests share.

#![allow(dead_code, reason = "no test file uses all of it")]

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use akidb_embedding::{BatchEmbeddingRequest, MlxEmbeddingProvider, PythonEnvironment, ServiceOptions};
use pyo3::prelude::*;

pub const MINILM: &str = "minilm-l6-v2";

pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// One MiniLM for all tests of a file.
pub fn minilm() -> MlxEmbeddingProvider {
    static MINILM_SERVICE: OnceLock<MlxEmbeddingProvider> = OnceLock::new();
    let options = ServiceOptions::default().with_device("cpu");
    MINILM_SERVICE.get_or_init(|| MlxEmbeddingProvider::open(MINILM, &options).unwrap()).clone()
}

pub fn request(texts: impl IntoIterator<Item = impl Into<String>>) -> BatchEmbeddingRequest {
    BatchEmbeddingRequest::new(MINILM, texts)
}

/// Different sentences of different lengths: the first ones of the STS benchmark's pairs, numbered when they repeat.
pub fn sentences(count: usize) -> Vec<String> {
    let file = std::fs::read_to_string(repository().join("tests/goldens/stsb-en-test.csv")).unwrap();
    let mut lines: Vec<&str> =
        file.lines().map(|line| line.split([',', '"']).find(|part| !part.is_empty()).unwrap()).collect();
    lines.sort_unstable();
    lines.dedup();
    lines.sort_by_key(|line| line.bytes().map(u64::from).sum::<u64>() % 101);
    (0..count)
        .map(|index| (lines[index % lines.len()], index / lines.len()))
        .map(|(line, round)| match round {
            0 => line.to_owned(),
            round => format!("{line} {round}"),
        })
        .collect()
}

/// A provider around what `make()` of a Python program returns.
pub fn service(program: &str) -> MlxEmbeddingProvider {
    MlxEmbeddingProvider::from_service(made_by(program)).unwrap()
}

/// What `make()` of a Python program returns.
pub fn made_by(program: &str) -> Py<PyAny> {
    PythonEnvironment::default().start().unwrap();
    Python::attach(|py| {
        let program = CString::new(program).unwrap();
        let module = PyModule::from_code(py, &program, c"test_program.py", c"test_program").unwrap();
        module.getattr("make").unwrap().call0().unwrap().unbind()
    })
}

/// What a Python expression gives, in which `it` is the object.
pub fn ask<T: for<'a, 'py> FromPyObject<'a, 'py, Error: Into<PyErr>>>(
    made: &Py<PyAny>,
    expression: &std::ffi::CStr,
) -> T {
    Python::attach(|py| {
        let locals = pyo3::types::PyDict::new(py);
        locals.set_item("it", made).unwrap();
        py.eval(expression, Some(&locals), None).unwrap().extract().map_err(Into::into).unwrap()
    })
}

pub async fn eventually(mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(10), "never came about");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Python's part of [`service`]: a stand-in that is told what `submit` does.
pub const STAND_IN: &str = r#"
import threading, time
from concurrent.futures import Future
import numpy as np
from akidb_mlx import errors
from akidb_mlx.vectors import EmbeddingBatch

class StandIn:
    def __init__(self):
        self.calls, self.futures, self.closed = [], [], []

    def get_model_info(self):
        return {"model_name": "minilm-l6-v2", "dimension": 4, "max_tokens": 8}

    def health_check(self):
        return {"status": "ok", "reason": "ready"}

    def close(self, drain=False):
        self.closed.append(drain)
        for future in self.futures:
            if not future.done():
                future.set_exception(errors.ServiceClosedError("the service is closed"))

    def batch(self, texts):
        vectors = np.array([[len(text), index, 0.5, -1] for index, text in enumerate(texts)], dtype=np.float32)
        return EmbeddingBatch(vectors.reshape(-1, 4), [len(text) for text in texts], [False] * len(texts), "minilm-l6-v2", 4)

    def submit(self, texts, **options):
        self.calls.append((texts, options))
        future = Future()
        self.futures.append(future)
        self.resolve(future, texts)
        return future

    def resolve(self, future, texts):
        future.set_result(self.batch(texts))

def make():
    return StandIn()
"#;

/// A stand-in for a reranker: the score of a pair is the length of its document.
pub const RERANKER_STAND_IN: &str = r#"
from concurrent.futures import Future
import numpy as np
from akidb_mlx import errors
from akidb_mlx.reranking import ScoreBatch

class Ranker:
    def __init__(self):
        self.calls, self.futures, self.closed = [], [], []

    def get_model_info(self):
        return {"model_name": "stand-in", "labels": ["LABEL_0"], "max_tokens": 8}

    def health_check(self):
        return {"status": "ok", "reason": "ready"}

    def close(self, drain=False):
        self.closed.append(drain)

    def submit(self, pairs, **options):
        self.calls.append((pairs, options))
        future = Future()
        self.futures.append(future)
        self.resolve(future, pairs)
        return future

    def resolve(self, future, pairs):
        scores = np.array([len(document) for _, document in pairs], np.float32)
        future.set_result(ScoreBatch(scores, [1] * len(pairs), [False] * len(pairs), "stand-in"))
"#;

/// A service of 512 values that computes nothing, and answers from a thread of its own as the real one does.
pub fn no_op_service() -> MlxEmbeddingProvider {
    service(&format!(
        "{STAND_IN}
from queue import SimpleQueue

class NoOp(StandIn):
    def __init__(self):
        super().__init__()
        self.inbox = SimpleQueue()
        self.batches = {{n: EmbeddingBatch(np.zeros((n, 512), np.float32), [1] * n, [False] * n, 'no-op', 512) for n in (1, 1000)}}
        threading.Thread(target=self.work, daemon=True).start()

    def work(self):
        while True:
            future, count = self.inbox.get()
            if future.set_running_or_notify_cancel():
                future.set_result(self.batches[count])

    def submit(self, texts, **options):
        future = Future()
        self.inbox.put((future, len(texts)))
        return future

def make():
    return NoOp()
"
    ))
}

/// Begin a call, and leave at once.
pub async fn abandon<T>(call: impl Future<Output = T>) {
    tokio::select! {
        biased;
        _ = call => panic!("it was answered before anybody could leave"),
        () = std::future::ready(()) => {}
    }
}

/// Run an ignored test of this file as a process of its own; `None` when it is still running after the limit.
pub fn run_apart(test: &str, environment: &[(&str, &str)], limit: Duration) -> Option<Output> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--ignored", "--nocapture"])
        .envs(environment.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(child.wait_with_output().unwrap())
}

/// Threads of this process.
#[cfg(target_os = "linux")]
pub fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

/// Bytes of memory that are resident.
#[cfg(target_os = "linux")]
pub fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

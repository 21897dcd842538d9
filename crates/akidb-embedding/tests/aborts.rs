//! What would end a careless process: each in a process of its own, which must say what is wrong and end by itself.
#![cfg(feature = "python")]

mod common;

use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use akidb_embedding::{
    BatchEmbeddingRequest, EmbeddingError, EmbeddingProvider, MlBridge, MlxEmbeddingProvider, PyMlBridge,
    PythonEnvironment, ServiceOptions,
};
use common::{made_by, minilm, request, run_apart};
use pyo3::prelude::*;

const LIMIT: Duration = Duration::from_secs(60);

fn run(program: &str, environment: &[(&str, &str)]) -> String {
    let environment = [environment, &[("HF_HUB_OFFLINE", "1"), ("AKIDB_DEVICE", "cpu")]].concat();
    let Some(Output { status, stdout, stderr }) = run_apart(program, &environment, LIMIT) else {
        panic!("{program} did not end within {LIMIT:?}");
    };
    let said = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{program}: {status}: {said}");
    said.into_owned()
}

/// Opens the model in `AKIDB_TEST_MODEL`, which fails, and prints the variant and the message.
#[test]
#[ignore = "a program of the tests below"]
fn open_and_fail() {
    let model = std::env::var("AKIDB_TEST_MODEL").unwrap_or(common::MINILM.to_owned());
    match MlxEmbeddingProvider::new(&model) {
        Ok(_) => panic!("it was opened"),
        Err(EmbeddingError::ModelNotFound(failure)) => println!("ModelNotFound: {failure}"),
        Err(EmbeddingError::InvalidInput(failure)) => println!("InvalidInput: {failure}"),
        Err(EmbeddingError::Internal(failure)) => println!("Internal: {failure}"),
        Err(error) => panic!("{error:?}"),
    }
}

fn fails_with(environment: &[(&str, &str)], expected: &[&str]) {
    let said = run("open_and_fail", environment);
    for part in expected {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
}

#[test]
fn no_interpreter_where_one_was_named() {
    fails_with(
        &[("AKIDB_PYTHON", "/no/such/venv")],
        &["Internal: no Python at /no/such/venv (from AKIDB_PYTHON)", "python3 -m venv /no/such/venv"],
    );
    fails_with(&[("AKIDB_PYTHON", ""), ("VIRTUAL_ENV", "/no/venv")], &["no Python at /no/venv (from VIRTUAL_ENV)"]);
    fails_with(&[("AKIDB_PYTHON", ""), ("VIRTUAL_ENV", ""), ("PATH", "/no")], &["PATH has no python3"]);
    fails_with(&[("AKIDB_PYTHON", env!("CARGO_MANIFEST_DIR"))], &["a folder without bin/python3"]);
}

#[test]
fn an_interpreter_that_is_none_or_does_not_start() {
    fails_with(&[("AKIDB_PYTHON", "/bin/ls")], &["Internal: /bin/ls (from AKIDB_PYTHON) is not a Python that works"]);
    fails_with(&[("AKIDB_PYTHON", file!())], &["no Python at"]);
    fails_with(&[("PYTHONHOME", "/no/home")], &["is not a Python that works", "PYTHONHOME"]);
}

#[test]
fn an_interpreter_of_another_version() {
    // What differs in the last number only would start, and fail later where a compiled module is imported.
    let linked = Python::version_str().split(' ').next().unwrap();
    let version = format!("{}.99", linked.rsplit_once('.').unwrap().0);
    let folder = stand_in(&version);
    fails_with(
        &[("AKIDB_PYTHON", folder.to_str().unwrap())],
        &[
            &format!("/opt/other/bin/python (from AKIDB_PYTHON) is Python {version}, "),
            &format!("this program runs the libpython of Python {linked} ("),
            "PYO3_PYTHON=/opt/other/bin/python",
            "rpath",
        ],
    );
}

/// As on a Mac that has no Python but the system's.
#[test]
fn an_interpreter_that_is_too_old() {
    for version in ["2.7", "3.9"] {
        let path = stand_in(version).join("bin");
        fails_with(
            &[("AKIDB_PYTHON", ""), ("VIRTUAL_ENV", ""), ("PATH", path.to_str().unwrap())],
            &[
                &format!("/opt/other/bin/python (from PATH) is Python {version}, and akidb-mlx needs 3.10 or newer"),
                "brew install python@3.13",
                "AKIDB_PYTHON",
            ],
        );
    }
}

/// The folder of an interpreter that says that it is of some version.
fn stand_in(version: &str) -> std::path::PathBuf {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("python{version}"));
    std::fs::create_dir_all(folder.join("bin")).unwrap();
    let python = folder.join("bin/python3");
    std::fs::write(
        &python,
        format!("#!/bin/sh\nprintf 'akidb\\n{version} (main, Jan 1 2030)\\n/opt/other/bin/python\\n'\n"),
    )
    .unwrap();
    assert!(Command::new("chmod").arg("+x").arg(&python).status().unwrap().success());
    folder
}

#[test]
fn a_python_without_the_package() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("bare");
    let python = std::env::var("AKIDB_PYTHON").unwrap();
    let interpreter = if std::path::Path::new(&python).is_dir() { format!("{python}/bin/python") } else { python };
    let made =
        Command::new(interpreter).args(["-m", "venv", "--clear", "--without-pip"]).arg(&folder).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let folder = folder.to_str().unwrap();
    fails_with(
        &[("AKIDB_PYTHON", folder)],
        &["Internal: ", "No module named 'akidb_mlx'", &format!("{folder}/bin/python"), "-m pip install akidb-mlx"],
    );
}

#[test]
fn a_model_that_is_not_there_or_not_one() {
    fails_with(
        &[("AKIDB_TEST_MODEL", "nobody/has-this"), ("AKIDB_CACHE_DIR", env!("CARGO_TARGET_TMPDIR"))],
        &["ModelNotFound: ", "nobody/has-this"],
    );
    fails_with(&[("AKIDB_TEST_MODEL", env!("CARGO_MANIFEST_DIR"))], &["ModelNotFound: ", "config.json"]);
    let damaged = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("damaged");
    std::fs::create_dir_all(&damaged).unwrap();
    std::fs::write(damaged.join("config.json"), "{").unwrap();
    fails_with(&[("AKIDB_TEST_MODEL", damaged.to_str().unwrap())], &["Internal: ", "config.json"]);
    fails_with(&[("AKIDB_DEVICE", "abacus"), ("AKIDB_TOKEN_BUDGET", "none")], &["InvalidInput: ", "token_budget"]);
}

#[test]
#[ignore = "a program of the tests below"]
fn open_a_wrong_module() {
    for path in ["/no/such/folder", "json", "json.decoder", env!("CARGO_MANIFEST_DIR")] {
        match PyMlBridge::new(path) {
            Ok(_) => panic!("it was opened"),
            Err(error) => println!("{error:?}"),
        }
    }
}

#[test]
fn a_wrong_module() {
    let said = run("open_a_wrong_module", &[]);
    assert_eq!(said.matches("ModuleImport: ").count(), 4, "{said}");
    assert!(said.contains("has no function generate_embedding"), "{said}");
}

/// Its owner thread dies in mid-call, twice: the first time it is replaced.
#[test]
#[ignore = "a program of the tests below"]
fn kill_the_engine() {
    PythonEnvironment::default().start().unwrap();
    let killer = made_by(
        "
from akidb_mlx.engine import step_loop
def die(*_):
    raise SystemExit('killed')
def make():
    return lambda: setattr(step_loop.StepLoop, '_deliver', die)
",
    );
    let provider = minilm();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        provider.embed_batch(request(["alive"])).await.unwrap();
        Python::attach(|py| killer.call0(py)).unwrap();
        for _ in 0..3 {
            let error = provider.embed_batch(request(["dead"])).await.unwrap_err();
            assert!(matches!(&error, EmbeddingError::ServiceUnavailable { .. }), "{error:?}");
            assert!(error.to_string().contains("owner thread died"), "{error}");
        }
        let error = provider.health_check().await.unwrap_err();
        assert!(matches!(&error, EmbeddingError::ServiceUnavailable { .. }), "{error:?}");
        provider.model_info().await.unwrap();
        provider.close(true).await.unwrap();
    });
}

#[test]
fn an_engine_that_dies() {
    run("kill_the_engine", &[]);
}

/// Ends while calls are pending, a provider is open and another was dropped.
#[test]
#[ignore = "a program of the tests below"]
fn end_without_closing() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        drop(MlxEmbeddingProvider::new(common::MINILM).unwrap());
        let provider = minilm();
        for _ in 0..8 {
            let provider = provider.clone();
            tokio::spawn(async move { provider.embed_batch(request(common::sentences(2000))).await });
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    });
    runtime.shutdown_background();
}

/// Ends after providers were closed whose forward passes hang.
#[test]
#[ignore = "a program of the tests below"]
fn end_with_passes_that_hang() {
    PythonEnvironment::default().start().unwrap();
    let hang = made_by(
        "
import time
from akidb_mlx.backends.mlx.model import EmbeddingModel
from akidb_mlx.runtime import process
def hang(*_):
    time.sleep(600)
def make():
    process.CLOSE_TIMEOUT_S = 0.1
    return lambda: setattr(EmbeddingModel, 'start', hang)
",
    );
    let model = common::repository().join("tests/goldens/tiny-bert");
    let model = model.to_str().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let options = ServiceOptions::default().with_device("cpu");
        let providers = [(); 4].map(|()| MlxEmbeddingProvider::open(model, &options).unwrap());
        Python::attach(|py| hang.call0(py)).unwrap();
        for provider in &providers {
            let pending = BatchEmbeddingRequest::new(model, ["a"]);
            assert!(tokio::time::timeout(Duration::from_millis(300), provider.embed_batch(pending)).await.is_err());
        }
        for provider in &providers {
            provider.close(false).await.unwrap();
        }
    });
    println!("ends at {}", since_1970().as_millis());
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap()
}

#[test]
fn closed_providers_do_not_add_to_the_wait_at_the_end() {
    let said = run("end_with_passes_that_hang", &[]);
    let ended = since_1970();
    let stamp = said.split("ends at ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    let waited = ended - Duration::from_millis(stamp.parse().unwrap());
    // All give up together after 4 s; one after another, the four would take 16 s.
    assert!(waited > Duration::from_secs(3), "the passes did not hang: the end took {waited:?}");
    assert!(waited < Duration::from_secs(10), "the end took {waited:?}");
}

#[test]
fn a_process_that_ends_without_closing() {
    let began = std::time::Instant::now();
    run("end_without_closing", &[]);
    assert!(began.elapsed() < Duration::from_secs(20));
}

/// The environment that was named is the one that runs.
#[test]
#[ignore = "a program of the tests below"]
fn print_the_prefix() {
    PythonEnvironment::default().with_sys_path(env!("CARGO_MANIFEST_DIR")).start().unwrap();
    Python::attach(|py| {
        let sys = py.import("sys").unwrap();
        let (prefix, path) = (sys.getattr("prefix").unwrap(), sys.getattr("path").unwrap());
        println!("prefix={prefix} first={}", path.get_item(0).unwrap());
    });
}

#[test]
fn the_environment_that_was_named_is_the_one_that_runs() {
    let python = std::fs::canonicalize(std::env::var("AKIDB_PYTHON").unwrap()).unwrap();
    assert!(python.is_dir(), "AKIDB_PYTHON must be a virtual environment for this test, found {python:?}");
    let said = run("print_the_prefix", &[("AKIDB_PYTHON", python.to_str().unwrap())]);
    assert!(said.contains(&format!("prefix={} first={}", python.display(), env!("CARGO_MANIFEST_DIR"))), "{said}");
}

/// As a host does that runs Python code of its own first.
#[test]
#[ignore = "a program of the tests below"]
fn open_after_the_host_started_python() {
    Python::attach(|py| py.run(c"import json", None, None)).unwrap();
    let provider = minilm();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        provider.embed_batch(request(["a"])).await.unwrap();
        provider.close(false).await.unwrap();
    });
}

#[test]
fn a_host_that_started_python_itself() {
    run("open_after_the_host_started_python", &[]);
}

#[tokio::test]
async fn no_python_at_all_is_the_bridges_error_too() {
    let Err(error) = PyMlBridge::open("akidb_mlx.ml_funcs", &PythonEnvironment::at("/no/python")) else { panic!() };
    assert!(error.to_string().contains("no Python at /no/python (from PythonEnvironment::at)"), "{error}");
    let stand_in: &dyn MlBridge = &akidb_embedding::MockMlBridge;
    assert!(stand_in.health_check().await.unwrap());
}

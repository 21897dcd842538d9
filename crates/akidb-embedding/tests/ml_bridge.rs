//! The bridge to a user's own functions, and to those of akidb-mlx.
#![cfg(feature = "python")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use akidb_embedding::{EmbeddingError, MlBridge, MlBridgeError, PyMlBridge, PythonEnvironment};
use common::{abandon, threads};
use tokio::task::JoinSet;

const FUNCTIONS: &str = "
import threading
import numpy as np
from beside import LABEL

calls = []

def generate_embedding(text):
    calls.append(1)
    if text == 'bad':
        raise ValueError('a bad text')
    return [float(len(text)), 0.5]

def generate_embeddings_batch(texts):
    calls.append(len(texts))
    if 'bad' in texts:
        raise ValueError('a bad text')
    return np.array([[len(text), 0.5] for text in texts], dtype=np.float32)

def extract_entities(text):
    start = text.index('Köln')
    return [{'text': 'Köln', 'label': LABEL, 'start': start, 'end': start + 4}]

def summarize(messages):
    return ' / '.join(messages) + ' | ' + ' '.join(map(str, calls))

def health_check():
    return True

def close():
    calls.append('closed')
";

/// A folder of files, made anew.
fn folder(name: &str, files: &[(&str, &str)]) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    for (path, content) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

fn of_files(name: &str, functions: &str) -> PyMlBridge {
    PyMlBridge::new(folder(name, &[("ml_funcs.py", functions), ("beside.py", "LABEL = 'CITY'")])).unwrap()
}

#[tokio::test]
async fn a_users_functions_are_called() {
    let bridge = of_files("users", FUNCTIONS);
    assert_eq!(bridge.generate_embedding("four").await.unwrap(), [4.0, 0.5]);
    let texts = ["a".to_owned(), "bb".to_owned()];
    assert_eq!(bridge.generate_embeddings_batch(&texts).await.unwrap(), [[1.0, 0.5], [2.0, 0.5]]);
    assert!(bridge.generate_embeddings_batch(&[]).await.unwrap().is_empty());
    let text = "Grüße aus Köln \u{1f980}";
    let entities = bridge.extract_entities(text).await.unwrap();
    let [entity] = &entities[..] else { panic!("{entities:?}") };
    assert_eq!((entity.text.as_str(), entity.label.as_str()), ("Köln", "CITY"));
    assert_eq!((entity.start, entity.end, entity.start_byte, entity.end_byte), (10, 14, 12, 17));
    assert_eq!(&text[entity.start_byte..entity.end_byte], "Köln");
    assert!(bridge.summarize(&texts).await.unwrap().starts_with("a / bb |"));
    assert!(bridge.health_check().await.unwrap());
    bridge.close().await.unwrap();
    assert!(bridge.summarize(&[]).await.unwrap().ends_with(" closed"));
}

#[tokio::test]
async fn a_package_is_a_module_too_and_two_folders_do_not_mix() {
    let package = folder(
        "package",
        &[
            (
                "ml_funcs/__init__.py",
                &format!("{}\nfrom .inner import summarize", FUNCTIONS.replace("from beside", "from .inner")),
            ),
            ("ml_funcs/inner.py", "LABEL = 'INNER'\ndef summarize(messages): return 'of the package'"),
        ],
    );
    let file = of_files("file", FUNCTIONS);
    let package = PyMlBridge::new(package).unwrap();
    assert_eq!(package.summarize(&["a".to_owned()]).await.unwrap(), "of the package");
    assert!(file.summarize(&["a".to_owned()]).await.unwrap().starts_with("a |"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn single_texts_share_calls_and_a_bad_one_fails_alone() {
    let functions = FUNCTIONS
        .replace("def generate_embedding(text):", "import time\ndef generate_embedding(text):\n    time.sleep(0.2)");
    let bridge = Arc::new(of_files("shared", &functions));
    let one = |text: String| {
        let bridge = Arc::clone(&bridge);
        tokio::spawn(async move { bridge.generate_embedding(&text).await })
    };
    let first = one("first".to_owned());
    tokio::time::sleep(Duration::from_millis(50)).await;
    let rest: Vec<_> = (1..=500).map(|length| one("x".repeat(length))).collect();
    assert_eq!(first.await.unwrap().unwrap(), [5.0, 0.5]);
    for (index, task) in rest.into_iter().enumerate() {
        assert_eq!(task.await.unwrap().unwrap(), [index as f32 + 1.0, 0.5]);
    }
    let calls = bridge.summarize(&[]).await.unwrap();
    assert!(calls.split(' ').count() < 20, "{calls}");
    assert!(threads() < 40);

    let tasks = [one("first".to_owned()), one("good".to_owned()), one("bad".to_owned()), one("fine".to_owned())];
    let mut failed = 0;
    for task in tasks {
        if let Err(error) = task.await.unwrap() {
            assert!(matches!(&error, MlBridgeError::FunctionCall(failure) if failure.message.contains("a bad text")));
            failed += 1;
        }
    }
    assert_eq!(failed, 1);
}

/// Functions that note their calls, and each take one pass to return; `summarize` tells the calls, gives passes where it
/// is given "pass", and waits for `close` where it is given "wait".
const NOTING: &str = "
import threading

calls, passes, closed = [], threading.Semaphore(0), threading.Event()

def generate_embedding(text):
    calls.append(1)
    passes.acquire(timeout=60)
    return [1.0]

def generate_embeddings_batch(texts):
    calls.append(len(texts))
    passes.acquire(timeout=60)
    return [[1.0]] * len(texts)

def extract_entities(text):
    return []

def summarize(messages):
    if messages == ['wait']:
        calls.append('wait')
        closed.wait(60)
    if messages:
        passes.release(len(messages))
    return ' '.join(map(str, calls))

def health_check():
    calls.append('health')
    passes.acquire(timeout=60)
    return True

def close():
    closed.set()
";

async fn calls(bridge: &PyMlBridge) -> String {
    bridge.summarize(&[]).await.unwrap()
}

async fn give_passes(bridge: &PyMlBridge, count: usize) {
    bridge.summarize(&vec!["pass".to_owned(); count]).await.unwrap();
}

async fn until_called(bridge: &PyMlBridge, expected: &str) {
    while calls(bridge).await != expected {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn each_kind_of_call_has_places_of_its_own() {
    let bridge = Arc::new(of_files("places", NOTING));
    give_passes(&bridge, 3).await;
    let (refused, refusals) = std::sync::mpsc::channel();
    let mut summaries = JoinSet::new();
    for _ in 0..4200 {
        let (bridge, refused) = (Arc::clone(&bridge), refused.clone());
        summaries.spawn(async move {
            if let Err(error) = bridge.summarize(&["wait".to_owned()]).await {
                refused.send(error).unwrap();
            }
        });
    }
    let error = loop {
        match refusals.try_recv() {
            Ok(error) => break error,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert!(error.retry_after().is_some(), "{error}");
    let others = async {
        assert_eq!(bridge.generate_embedding("a").await.unwrap(), [1.0]);
        assert_eq!(bridge.generate_embeddings_batch(&["a".to_owned()]).await.unwrap(), [[1.0]]);
        assert!(bridge.extract_entities("a").await.unwrap().is_empty());
        assert!(bridge.health_check().await.unwrap());
    };
    tokio::time::timeout(Duration::from_secs(20), others).await.expect("they wait for the summaries");
    summaries.abort_all();
    bridge.close().await.unwrap();
}

#[tokio::test]
async fn python_is_not_asked_for_callers_who_left() {
    let bridge = Arc::new(of_files("left", NOTING));
    let mut singles = JoinSet::new();
    let one = |singles: &mut JoinSet<_>| {
        let bridge = Arc::clone(&bridge);
        singles.spawn(async move { bridge.generate_embedding("a").await.unwrap() });
    };
    one(&mut singles);
    until_called(&bridge, "1").await;
    (0..600).for_each(|_| one(&mut singles));
    tokio::time::sleep(Duration::from_millis(50)).await;
    // 256 of them share a call, and the others leave meanwhile.
    give_passes(&bridge, 1).await;
    until_called(&bridge, "1 256").await;
    singles.shutdown().await;
    give_passes(&bridge, 2).await;
    assert_eq!(bridge.generate_embedding("a").await.unwrap(), [1.0]);
    assert_eq!(calls(&bridge).await, "1 256 1");

    let asked = tokio::spawn({
        let bridge = Arc::clone(&bridge);
        async move { bridge.health_check().await }
    });
    until_called(&bridge, "1 256 1 health").await;
    for _ in 0..1000 {
        abandon(bridge.health_check()).await;
    }
    give_passes(&bridge, 9).await;
    assert!(asked.await.unwrap().unwrap());
    assert!(bridge.health_check().await.unwrap());
    // One more may be made for the first caller, who has its answer and has not taken it yet.
    let health_checks = calls(&bridge).await.matches("health").count();
    assert!((2..=3).contains(&health_checks), "{health_checks}");
}

#[tokio::test]
async fn a_bridge_has_a_timeout() {
    let bridge = of_files("timeout", NOTING).with_timeout(Duration::from_millis(100));
    for _ in 0..2 {
        let error = bridge.summarize(&["wait".to_owned()]).await.unwrap_err();
        assert!(error.to_string().contains("timeout"), "{error}");
        assert!(matches!(EmbeddingError::from(error), EmbeddingError::ServiceUnavailable { .. }));
    }
    assert!(!bridge.health_check().await.unwrap());
    assert!(bridge.generate_embedding("a").await.is_err());
    bridge.close().await.unwrap();
    let bridge = bridge.with_timeout(Duration::from_secs(60));
    // The second "wait" was not called: nobody waited any more when its turn came.
    assert_eq!(calls(&bridge).await, "wait health 1");
}

#[tokio::test]
async fn a_bridge_is_loaded_without_blocking_and_has_a_debug_form() {
    let path = folder("loaded", &[("ml_funcs.py", NOTING)]);
    let bridge = PyMlBridge::load(&path, PythonEnvironment::default()).await.unwrap();
    assert!(bridge.extract_entities("a").await.unwrap().is_empty());
    let said = format!("{bridge:?}");
    assert!(said.contains(path.to_str().unwrap()) && said.len() < 400, "{said}");
    let error = PyMlBridge::load("/no/such/folder", PythonEnvironment::default()).await.unwrap_err();
    assert!(matches!(error, MlBridgeError::ModuleImport { .. }), "{error:?}");
}

#[tokio::test]
async fn what_is_returned_must_be_what_was_agreed_on() {
    let wrong = "
def generate_embedding(text): return ['a']
def generate_embeddings_batch(texts): return [[1.0]]
def extract_entities(text): return [{'text': 'Bob', 'label': 'PERSON', 'start': 1, 'end': 99}]
def summarize(messages): return None
def health_check(): return 'yes'
";
    let bridge = of_files("wrong", wrong);
    let two = ["a".to_owned(), "b".to_owned()];
    for outcome in [
        bridge.generate_embedding("a").await.map(drop),
        bridge.generate_embeddings_batch(&two).await.map(drop),
        bridge.extract_entities("Alice and Bob").await.map(drop),
        bridge.summarize(&two).await.map(drop),
        bridge.health_check().await.map(drop),
    ] {
        assert!(matches!(outcome, Err(MlBridgeError::TypeConversion { .. })), "{outcome:?}");
    }
}

#[test]
fn a_module_that_is_not_there_or_not_whole_is_refused() {
    let lacking = folder("lacking", &[("ml_funcs.py", "def summarize(messages): return ''")]);
    let broken = folder("broken", &[("ml_funcs.py", "import a_package_that_nobody_has")]);
    let empty = folder("empty", &[("other.py", "")]);
    for (path, says) in [
        (
            lacking.to_str().unwrap(),
            "no function generate_embedding, generate_embeddings_batch, extract_entities, health_check",
        ),
        (broken.to_str().unwrap(), "a_package_that_nobody_has"),
        (empty.to_str().unwrap(), "looked for ml_funcs.py or ml_funcs/__init__.py"),
        ("/no/such/folder", "found nothing"),
        ("akidb_mlx.no_such_module", "no_such_module"),
    ] {
        let Err(error) = PyMlBridge::new(path) else { panic!("{path} was taken") };
        assert!(matches!(error, MlBridgeError::ModuleImport { .. }), "{error:?}");
        assert!(error.to_string().contains(says), "{error}");
    }
    let Err(error) = PyMlBridge::open(empty, &PythonEnvironment::at("/no/python")) else { panic!() };
    assert!(matches!(error, MlBridgeError::PythonInit { .. }), "{error:?}");
}

#[tokio::test]
async fn the_functions_of_akidb_mlx() {
    let bridge = match PyMlBridge::default_module() {
        Ok(bridge) => bridge,
        Err(error) if error.to_string().contains("No module named 'akidb_mlx.ml_funcs'") => {
            return eprintln!("skipped: {error}");
        }
        Err(error) => panic!("{error}"),
    };
    let vector = bridge.generate_embedding("Hello, world!").await.unwrap();
    assert_eq!(vector.len(), 384);
    let batch = bridge.generate_embeddings_batch(&["Hello, world!".to_owned()]).await.unwrap();
    assert!(batch[0].iter().zip(&vector).all(|(a, b)| (a - b).abs() < 1e-6));
    let text = "Alice met Bob in Paris.";
    match bridge.extract_entities(text).await {
        Ok(entities) => {
            let found: Vec<&str> = entities.iter().map(|entity| &text[entity.start_byte..entity.end_byte]).collect();
            assert_eq!(found, ["Alice", "Bob", "Paris"]);
        }
        Err(error) => eprintln!("skipped, entities: {error}"),
    }
    bridge.close().await.unwrap();
}

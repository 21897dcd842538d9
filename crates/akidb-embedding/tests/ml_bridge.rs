//! The bridge to a user's own functions, and to those of akidb-mlx.
#![cfg(feature = "python")]

mod common;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use akidb_embedding::{MlBridge, MlBridgeError, PyMlBridge, PythonEnvironment};
use common::threads;

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
    let bridge = std::sync::Arc::new(of_files("shared", &functions));
    let one = |text: String| {
        let bridge = std::sync::Arc::clone(&bridge);
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

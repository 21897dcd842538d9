//! A mutex of the host's around a service: the order of locks that is right, one that is slow, and one that freezes.
#![cfg(feature = "python")]
#![allow(clippy::disallowed_types, reason = "the mutex is what is tested")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use akidb_embedding::{EmbeddingProvider, MlxEmbeddingProvider};
use common::{STAND_IN, made_by, minilm, request, run_apart};
use pyo3::prelude::*;

const TASKS: usize = 64;

/// Many tasks that embed, ask for the model and for its health, each through `provider`.
async fn mixed_tasks<F>(provider: impl Fn() -> F + Clone + Send + Sync + 'static)
where
    F: Future<Output = MlxEmbeddingProvider> + Send,
{
    let tasks: Vec<_> = (0..TASKS)
        .map(|index| {
            let provider = provider.clone();
            tokio::spawn(async move {
                for _ in 0..3 {
                    let text = format!("text {index}");
                    let embedded = provider().await.embed_batch(request([text])).await.unwrap();
                    assert_eq!(embedded.embeddings[0].len(), 384);
                    assert_eq!(provider().await.model_info().await.unwrap().dimension, 384);
                    provider().await.health_check().await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(120), task).await.expect("frozen").unwrap();
    }
}

/// Right: the mutex is held only to clone the handle, and no thread that waits for it has the GIL.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_mutex_that_is_held_to_clone_the_handle() {
    let shared = Arc::new(Mutex::new(minilm()));
    mixed_tasks(move || std::future::ready(shared.lock().unwrap().clone())).await;
}

/// The same for a host that has the GIL when it wants the handle: it detaches while it waits for the mutex.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_mutex_that_is_waited_for_with_the_gil_released() {
    let shared = Arc::new(Mutex::new(minilm()));
    let handle = move || {
        let provider = Python::attach(|py| py.detach(|| shared.lock().unwrap().clone()));
        std::future::ready(provider)
    };
    mixed_tasks(handle).await;
}

/// Tolerable: held around the whole call, so that calls run one by one, but never waited for with the GIL.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_mutex_that_is_held_around_the_call_is_only_slow() {
    let shared = Arc::new(tokio::sync::Mutex::new(minilm()));
    let tasks: Vec<_> = (0..TASKS)
        .map(|index| {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                let provider = shared.lock().await;
                provider.embed_batch(request([format!("text {index}")])).await.unwrap();
                provider.health_check().await.unwrap();
                provider.model_info().await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(120), task).await.expect("frozen").unwrap();
    }
}

/// Threads that share a Python service under a mutex, as the first integration did.
fn threads_of_a_host(embed: impl Fn(&Mutex<Py<PyAny>>) + Copy + Send + 'static) {
    let service = made_by(&format!(
        "{STAND_IN}\nclass Slow(StandIn):\n    def embed(self, texts):\n        time.sleep(0.001)\n        return [1.0]\n\
         \ndef make():\n    return Slow()\n"
    ));
    let shared = Arc::new(Mutex::new(service));
    let threads: Vec<_> = (0..16)
        .map(|_| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || (0..20).for_each(|_| embed(&shared)))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn call(py: Python<'_>, service: &Py<PyAny>) {
    let vector: Vec<f32> = service.bind(py).call_method1("embed", (["a"],)).unwrap().extract().unwrap();
    assert_eq!(vector, [1.0]);
}

#[test]
#[ignore = "a program of the tests below"]
fn mutex_then_gil() {
    threads_of_a_host(|shared| {
        let service = shared.lock().unwrap();
        Python::attach(|py| call(py, &service));
    });
}

#[test]
#[ignore = "a program of the tests below"]
fn gil_then_mutex() {
    threads_of_a_host(|shared| Python::attach(|py| call(py, &shared.lock().unwrap())));
}

#[test]
fn a_mutex_that_is_taken_before_the_gil_is_only_slow() {
    let done = run_apart("mutex_then_gil", &[], Duration::from_secs(60)).expect("frozen");
    assert!(done.status.success(), "{done:?}");
}

/// The holder needs the GIL to come back from `embed`; the waiter keeps it until the holder has come back.
#[test]
fn a_mutex_that_is_waited_for_with_the_gil_freezes_whatever_the_callee_does() {
    assert!(run_apart("gil_then_mutex", &[], Duration::from_secs(8)).is_none());
}

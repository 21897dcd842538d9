//! Many callers, for seconds: `make test-load`. Each prints what it measured.
#![cfg(all(feature = "python", target_os = "linux"))]

mod common;

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use akidb_embedding::{EmbedOptions, EmbeddingError, EmbeddingProvider, MlxEmbeddingProvider, Overflow};
use common::{made_by, no_op_service, request, resident, sentences, threads};
use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};

const MINILM_SERVICE: &str = "
from akidb_mlx import EmbeddingService
def make():
    return EmbeddingService('minilm-l6-v2', device='cpu')
";

fn four_threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap()
}

/// The most threads that this process had while something ran.
fn peak_threads<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let (peak, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let watcher = std::thread::spawn({
        let (peak, done) = (Arc::clone(&peak), Arc::clone(&done));
        move || {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(threads(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
    let outcome = run();
    done.store(true, Ordering::Relaxed);
    watcher.join().unwrap();
    (outcome, peak.load(Ordering::Relaxed))
}

#[test]
#[ignore = "make test-load"]
fn two_thousand_tasks_of_one_text_beside_one_call_of_pythons() {
    const ROUNDS: usize = 5;
    let texts = sentences(2000);
    let service = made_by(MINILM_SERVICE);
    let provider = MlxEmbeddingProvider::from_service(Python::attach(|py| service.clone_ref(py))).unwrap();
    let runtime = four_threads();
    let python = || {
        let began = Instant::now();
        Python::attach(|py| drop(service.bind(py).call_method1("embed_array", (&texts,)).unwrap()));
        began.elapsed()
    };
    let tasks = || {
        let began = Instant::now();
        let answered = runtime.block_on(async {
            let tasks: Vec<_> = texts
                .iter()
                .map(|text| {
                    let (provider, request) = (provider.clone(), request([text]));
                    tokio::spawn(async move { provider.embed_batch(request).await })
                })
                .collect();
            let mut answered = 0;
            for task in tasks {
                answered += task.await.unwrap().unwrap().embeddings.len();
            }
            answered
        });
        assert_eq!(answered, texts.len());
        began.elapsed()
    };
    python();
    // Both halves of a round meet a machine that is about equally busy with others.
    let (rounds, peak) = peak_threads(|| (0..ROUNDS).map(|_| (python(), tasks())).collect::<Vec<_>>());
    let ratios = rounds.iter().map(|(python, tasks)| python.div_duration_f64(*tasks));
    println!("2000 tasks of one text: one Python call and they took {rounds:.2?}, peak threads {peak}");
    println!("throughput by that of the call: {:.2?}", ratios.clone().collect::<Vec<_>>());
    assert!(ratios.fold(0.0, f64::max) >= 0.8 && peak < 40);
    runtime.block_on(provider.close(true)).unwrap();
}

#[test]
#[ignore = "make test-load"]
fn what_the_bridge_adds_to_a_service_that_computes_nothing() {
    let provider = no_op_service();
    let runtime = four_threads();
    let median = |texts: Vec<String>| {
        let mut times: Vec<Duration> = (0..301)
            .map(|_| {
                let request = request(&texts);
                let began = Instant::now();
                runtime.block_on(provider.embed_batch(request)).unwrap();
                began.elapsed()
            })
            .collect();
        times.sort_unstable();
        times[150]
    };
    let one = median(vec!["a".to_owned()]);
    let thousand = median(sentences(1000));
    let more = (thousand.saturating_sub(one)) / 999;
    println!("a call that computes nothing: {one:?} for one text, {more:?} for each more of 1000 with 512 values");
    assert!(one < Duration::from_micros(300) && more < Duration::from_micros(1));
}

#[test]
#[ignore = "make test-load"]
fn a_hundred_thousand_calls_leave_nothing() {
    let provider = no_op_service();
    let runtime = four_threads();
    let calls = |count| {
        runtime.block_on(async {
            for _ in 0..count {
                provider.embed_batch(request(["a"])).await.unwrap();
                drop(tokio::time::timeout(Duration::ZERO, provider.embed_batch(request(["dropped"]))).await);
            }
        });
    };
    calls(20_000);
    let before = resident();
    calls(100_000);
    let grown = resident().saturating_sub(before);
    println!("100000 calls and as many dropped ones: {grown} bytes more of memory");
    assert!(grown < 2 << 20);
}

/// Numbers that nobody can predict, for what a task does next.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// One thing a caller may do, and whether what came of it is right.
async fn act(provider: &MlxEmbeddingProvider, texts: &[String], expected: &[Vec<f32>]) -> &'static str {
    let index = random() as usize % texts.len();
    let text = || request([&texts[index]]);
    let right = |vectors: &[Vec<f32>]| {
        let close = vectors[0].iter().zip(&expected[index]).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(close && vectors.len() == 1 && vectors[0].len() == 384, "a wrong vector for text {index}");
    };
    let patience = Duration::from_micros(random() % 60_000);
    match random() % 8 {
        0 => {
            let options = EmbedOptions::default().with_timeout(patience);
            match provider.embed_with(text(), options).await {
                Ok(response) => right(&response.embeddings),
                Err(error) => assert!(matches!(error, EmbeddingError::ServiceUnavailable { .. }), "{error:?}"),
            }
            "deadlines"
        }
        1 => {
            if let Ok(response) = tokio::time::timeout(patience, provider.embed_batch(text())).await {
                right(&response.unwrap().embeddings);
            }
            "cancellations"
        }
        2 => {
            let options = EmbedOptions::default().with_on_overflow(Overflow::Error);
            let bad = request([texts[index].clone(), "word ".repeat(500)]);
            assert_eq!(provider.embed_with(bad, options).await.unwrap_err().index(), Some(1));
            "bad texts"
        }
        3 => {
            provider.health_check().await.unwrap();
            assert_eq!(provider.model_info().await.unwrap().dimension, 384);
            "health checks"
        }
        4 => {
            let flat = provider.embed_flat(request(texts), EmbedOptions::default()).await.unwrap();
            assert_eq!((flat.rows().len(), flat.token_counts.len()), (texts.len(), texts.len()));
            right(&[flat.rows().nth(index).unwrap().to_vec()]);
            "many texts"
        }
        _ => {
            right(&provider.embed_batch(text()).await.unwrap().embeddings);
            "one text"
        }
    }
}

#[test]
#[ignore = "make test-load"]
fn sixty_four_tasks_do_as_they_please_for_half_a_minute() {
    let service = made_by(MINILM_SERVICE);
    let provider = MlxEmbeddingProvider::from_service(Python::attach(|py| service.clone_ref(py))).unwrap();
    let runtime = four_threads();
    let texts = sentences(24);
    let expected = runtime.block_on(provider.embed_batch(request(&texts))).unwrap().embeddings;
    let end = Instant::now() + Duration::from_secs(30);
    let ((counts, settled), peak) = peak_threads(|| {
        runtime.block_on(async {
            let tasks: Vec<_> = (0..64)
                .map(|_| {
                    let (provider, texts, expected) = (provider.clone(), texts.clone(), expected.clone());
                    tokio::spawn(async move {
                        let mut counts = std::collections::BTreeMap::new();
                        while Instant::now() < end {
                            let action =
                                tokio::time::timeout(Duration::from_secs(60), act(&provider, &texts, &expected));
                            *counts.entry(action.await.expect("a hang")).or_insert(0) += 1;
                        }
                        counts
                    })
                })
                .collect();
            tokio::time::sleep(Duration::from_secs(10)).await;
            let settled = resident();
            let mut all = std::collections::BTreeMap::new();
            for task in tasks {
                task.await.unwrap().into_iter().for_each(|(action, count)| *all.entry(action).or_insert(0) += count);
            }
            (all, settled)
        })
    });
    let growth = resident() as f64 / settled as f64 - 1.0;
    let (waiting, futures): (usize, usize) = Python::attach(|py| {
        let locals = pyo3::types::PyDict::new(py);
        locals.set_item("service", &service).unwrap();
        let gc = py.import("gc").unwrap();
        gc.call_method0("collect").unwrap(); // a future and its call know each other
        locals.set_item("objects", gc.call_method0("get_objects").unwrap()).unwrap();
        let left = c"(service.get_metrics()['queue']['requests'], sum(type(o).__name__ == 'Future' for o in objects))";
        py.eval(left, Some(&locals), None).unwrap().extract().unwrap()
    });
    println!(
        "30 s: {counts:?}, peak threads {peak}, memory {:+.1} % after 10 s, {futures} futures left",
        growth * 100.0
    );
    assert!(counts.len() == 6 && peak < 40 && growth < 0.15 && waiting == 0 && futures < 100);
    runtime.block_on(provider.close(true)).unwrap();
}

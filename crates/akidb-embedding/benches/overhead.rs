//! What a call through the bridge costs beside the computing: `make bench-rust`.

#[path = "../tests/common/mod.rs"]
mod common;

use std::hint::black_box;

use akidb_embedding::{EmbedOptions, EmbeddingProvider};
use common::{made_by, no_op_service, request, sentences};
use criterion::{Criterion, criterion_group, criterion_main};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// A whole call of a service that computes nothing.
fn calls(criterion: &mut Criterion) {
    let provider = no_op_service();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
    let (one, thousand) = (request(["a"]), request(sentences(1000)));
    let mut group = criterion.benchmark_group("call");
    group.bench_function("1 text", |bencher| {
        bencher.iter(|| runtime.block_on(provider.embed_batch(one.clone())).unwrap());
    });
    group.bench_function("1000 texts, 512 values", |bencher| {
        bencher.iter(|| runtime.block_on(provider.embed_batch(thousand.clone())).unwrap());
    });
    group.bench_function("1000 texts, 512 values, flat", |bencher| {
        bencher.iter(|| runtime.block_on(provider.embed_flat(thousand.clone(), EmbedOptions::default())).unwrap());
    });
}

/// The vectors' way out of Python, alone.
fn extraction(criterion: &mut Criterion) {
    let array = made_by("import numpy as np\ndef make():\n    return np.ones((1000, 512), np.float32)\n");
    let mut group = criterion.benchmark_group("1000 x 512 values out of Python");
    group.bench_function("bytes", |bencher| {
        bencher.iter(|| {
            Python::attach(|py| {
                let bytes = array.bind(py).call_method0("tobytes").unwrap().cast_into::<PyBytes>().unwrap();
                let row = |row: &[u8]| -> Vec<f32> {
                    row.as_chunks().0.iter().map(|value| f32::from_ne_bytes(*value)).collect()
                };
                black_box(bytes.as_bytes().chunks_exact(4 * 512).map(row).collect::<Vec<_>>())
            })
        });
    });
    group.bench_function("lists", |bencher| {
        bencher.iter(|| {
            Python::attach(|py| {
                let lists = array.bind(py).call_method0("tolist").unwrap();
                black_box(lists.extract::<Vec<Vec<f32>>>().unwrap())
            })
        });
    });
}

criterion_group!(benches, calls, extraction);
criterion_main!(benches);

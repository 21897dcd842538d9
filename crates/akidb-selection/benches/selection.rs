//! Measures a KNN of 10 000 examples of 1 038 values, the size of real ones: `make bench-selection`.

use std::hint::black_box;
use std::time::Duration;

use akidb_selection::Selector;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Random, knn_json};

const EXAMPLES: usize = 10_000;
const VALUES: usize = 1038;
const BATCH: usize = 1000;

fn selection(criterion: &mut Criterion) {
    let mut random = Random::new(1);
    let text = knn_json(&mut random, EXAMPLES, VALUES, 5);
    let selector = Selector::from_json(&text).unwrap();
    let queries: Vec<Vec<f64>> = (0..BATCH).map(|_| random.vector(VALUES)).collect();

    let mut group = criterion.benchmark_group("knn of 10000 x 1038");
    group.sample_size(20).measurement_time(Duration::from_secs(8));
    let mut next = queries.iter().cycle();
    group.bench_function("select", |bencher| {
        bencher.iter(|| black_box(selector.select(next.next().unwrap()).unwrap()));
    });
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("select_batch of 1000", |bencher| {
        bencher.iter(|| black_box(selector.select_batch(&queries).unwrap()));
    });
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.sample_size(10).bench_function("from_json", |bencher| {
        bencher.iter(|| black_box(Selector::from_json(&text).unwrap()));
    });
    group.bench_function("to_json", |bencher| bencher.iter(|| black_box(selector.to_json())));
}

criterion_group!(benches, selection);
criterion_main!(benches);

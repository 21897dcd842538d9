//! Random selectors and queries.
#![allow(dead_code, reason = "each test and benchmark uses some of it")]

use std::fmt::Write;

/// SplitMix64 (Steele et al. 2014).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// A number from -1 to 1, of 53 bits.
    pub fn number(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }

    pub fn vector(&mut self, size: usize) -> Vec<f64> {
        (0..size).map(|_| self.number()).collect()
    }
}

/// The JSON of rows of numbers.
pub fn rows(rows: &[Vec<f64>]) -> String {
    let mut text = String::from("[");
    for (place, row) in rows.iter().enumerate() {
        let separator = if place == 0 { "" } else { ", " };
        write!(text, "{separator}{row:?}").unwrap();
    }
    text + "]"
}

/// The JSON of a KNN of random examples with eight labels.
pub fn knn_json(random: &mut Random, examples: usize, values: usize, k: usize) -> String {
    let embeddings: Vec<_> = (0..examples).map(|_| random.vector(values)).collect();
    let labels: Vec<String> = (0..examples).map(|_| format!("model-{}", random.below(8))).collect();
    let qualities: Vec<f64> = (0..examples).map(|_| random.number().abs()).collect();
    let latencies: Vec<usize> = (0..examples).map(|_| random.below(1_000_000_000)).collect();
    format!(
        r#"{{"algorithm": "knn", "trained": true, "k": {k}, "embeddings": {}, "labels": {labels:?},
        "qualities": {qualities:?}, "latencies": {latencies:?}}}"#,
        rows(&embeddings)
    )
}

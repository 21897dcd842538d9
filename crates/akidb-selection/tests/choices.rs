//! Choices and scores, by hand and against the definition of docs/selection.md written out.

mod common;

use std::collections::BTreeMap;

use akidb_selection::Selector;
use common::{Random, rows};
use proptest::prelude::*;

/// The examples and labels of a KNN.
struct Knn {
    k: usize,
    embeddings: Vec<Vec<f64>>,
    labels: Vec<String>,
}

impl Knn {
    fn json(&self) -> String {
        let (k, labels) = (self.k, &self.labels);
        let embeddings = rows(&self.embeddings);
        format!(
            r#"{{"algorithm": "knn", "trained": true, "k": {k}, "embeddings": {embeddings}, "labels": {labels:?}}}"#
        )
    }

    /// The sums of votes, each vote 0.9 · 0.5 + 0.1, by computing and sorting all distances.
    fn votes(&self, query: &[f64]) -> Vec<(String, f64)> {
        let distance = |row: &Vec<f64>| {
            let mut sum = 0.0;
            for (left, right) in query.iter().zip(row) {
                sum += (left - right).powi(2);
            }
            sum
        };
        let mut order: Vec<usize> = (0..self.labels.len()).collect();
        order.sort_by(|left, right| distance(&self.embeddings[*left]).total_cmp(&distance(&self.embeddings[*right])));
        let mut votes = BTreeMap::new();
        for example in order.into_iter().take(self.k) {
            *votes.entry(self.labels[example].clone()).or_insert(0.0) += 0.9 * 0.5 + 0.1 * 1.0;
        }
        votes.into_iter().collect()
    }
}

fn check(knn: &Knn, queries: &[Vec<f64>]) {
    let selector = Selector::from_json(knn.json()).unwrap();
    let mut choices = Vec::new();
    for query in queries {
        let votes = knn.votes(query);
        let scores = selector.scores(query).unwrap();
        assert_eq!(scores, votes.iter().map(|(label, sum)| (label.as_str(), *sum)).collect::<Vec<_>>());
        let most = votes.iter().map(|(_, sum)| *sum).fold(0.0, f64::max);
        let choice = votes.iter().find(|(_, sum)| *sum == most).unwrap().0.clone();
        assert_eq!(selector.select(query).unwrap(), choice);
        choices.push(choice);
    }
    assert_eq!(selector.select_batch(queries).unwrap(), choices);
}

/// Rows around a few centres, some of them equal and some apart by a last bit, at any scale.
fn knn(random: &mut Random, count: usize, width: usize, scale: f64, offset: f64) -> (Knn, Vec<Vec<f64>>) {
    let centres: Vec<_> = (0..3).map(|_| random.vector(width)).collect();
    let mut row = || -> Vec<f64> {
        let mut row: Vec<f64> = centres[random.below(3)].iter().map(|value| value * scale + offset).collect();
        match random.below(4) {
            0 => {}
            1 => {
                let place = random.below(width);
                row[place] = f64::from_bits(row[place].to_bits() ^ 1);
            }
            2 => {
                let place = random.below(width);
                row[place] *= 1.0 + 1e-9;
            }
            _ => row.iter_mut().for_each(|value| *value += scale * 1e-3 * random.number()),
        }
        row
    };
    let embeddings = (0..count).map(|_| row()).collect();
    let queries = (0..20).map(|_| row()).collect();
    let labels = (0..count).map(|place| format!("label {place}")).collect();
    (Knn { k: 1 + random.below(12), embeddings, labels }, queries)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_screened_knn_is_the_definition(
        seed: u64, count in 1_usize..80, width in 1_usize..40, scale in -50_i32..50, offset in -20_i32..8,
    ) {
        let mut random = Random::new(seed);
        let (knn, queries) = knn(&mut random, count, width, 10_f64.powi(scale / 4), 10_f64.powi(offset));
        check(&knn, &queries);
    }
}

/// Two rows whose float32 products come as near to the bound on their error as they can, to both sides: the nearer row
/// seems the farther one. Each product but the first is just below half a last bit of the sum, which stays as it is; or
/// just above, and it grows by a whole one. A bound that is a tenth too small loses the nearer row.
#[test]
fn rounding_at_the_bound_does_not_lose_the_nearest_row() {
    let unit = 2_f64.powi(-12); // its square is half of a float32's last bit
    for width in [16, 250, 1000, 4000] {
        let row = |value: f64| {
            let mut row = vec![value; width];
            row[0] = 1.0;
            row
        };
        let embeddings = vec![row(unit * 1.011), row(unit * 0.99)];
        let knn = Knn { k: 1, embeddings, labels: vec!["far".to_owned(), "near".to_owned()] };
        check(&knn, &vec![row(unit); 7]);
        assert_eq!(knn.votes(&row(unit))[0].0, "near");
    }
}

#[test]
fn values_beyond_the_screen_are_compared_too() {
    for scale in [1e16, 1e150, 1e-44, 1e-160, 5e-324] {
        let mut random = Random::new(3);
        let (knn, queries) = knn(&mut random, 60, 9, scale, 0.0);
        check(&knn, &queries);
        // A screened file, and queries beyond the screen.
        let queries: Vec<_> = (0..70).map(|_| random.vector(9).iter().map(|value| value * scale).collect()).collect();
        let embeddings = (0..50).map(|_| random.vector(9)).collect();
        check(&Knn { k: 5, embeddings, labels: (0..50).map(|place| format!("{place}")).collect() }, &queries);
    }
}

#[test]
fn wide_rows_and_batches_that_need_threads() {
    let mut random = Random::new(4);
    for (count, width) in [(100, 1038), (1000, 33)] {
        let embeddings: Vec<_> = (0..count).map(|_| random.vector(width)).collect();
        let queries: Vec<_> = (0..131).map(|_| random.vector(width)).collect();
        let labels = (0..count).map(|place| format!("label {}", place % 7)).collect();
        check(&Knn { k: 9, embeddings, labels }, &queries);
    }
}

#[test]
fn votes_by_quality_and_latency() {
    let text = r#"{"algorithm": "knn", "trained": true, "k": 10, "embeddings": [[0], [1], [2], [3]],
        "labels": ["b", "a", "b", "c"], "qualities": [0.8, 0.0, 0.4], "latencies": [100, 300, 200]}"#;
    let selector = Selector::from_json(text).unwrap();
    let vote = |quality: f64, speed: f64| 0.9 * quality + 0.1 * speed;
    // The third label has no quality and no latency: 0.5, and the middle of the range.
    let expected = [("a", vote(0.01, 0.0)), ("b", vote(0.8, 1.0) + vote(0.4, 0.5)), ("c", vote(0.5, 0.5))];
    assert_eq!(selector.scores(&[0.0]).unwrap(), expected);
    assert_eq!(selector.select(&[0.0]).unwrap(), "b");
    assert_eq!(selector.labels(), ["a", "b", "c"]);
    // One latency: a range of nothing counts as 1 ns.
    let one = text.replace("[100, 300, 200]", "[100]").replace("[0.8, 0.0, 0.4]", "[]");
    let expected = [("a", vote(0.5, 1.0)), ("b", 2.0 * vote(0.5, 1.0)), ("c", vote(0.5, 1.0))];
    assert_eq!(Selector::from_json(one).unwrap().scores(&[0.0]).unwrap(), expected);
}

#[test]
fn equal_votes_and_distances() {
    let text = r#"{"algorithm": "knn", "trained": true, "k": 2, "embeddings": [[1, 0], [0, 1], [-1, 0]],
        "labels": ["z", "é", "a"]}"#;
    let selector = Selector::from_json(text).unwrap();
    // All three are as near: the first two vote, and the smallest label wins.
    assert_eq!(selector.scores(&[0.0, 0.0]).unwrap().len(), 2);
    assert_eq!(selector.select(&[0.0, 0.0]).unwrap(), "z");
}

#[test]
fn the_nearest_centroid() {
    let text = r#"{"algorithm": "kmeans", "trained": true, "num_clusters": 99, "centroids": [[0, 0], [4, 0], [0, 2]],
        "cluster_models": ["b", "a", "b", "left over"]}"#;
    let selector = Selector::from_json(text).unwrap();
    assert_eq!(selector.scores(&[1.0, 2.0]).unwrap(), [("b", -1.0), ("a", -13.0)]);
    assert_eq!(selector.select(&[2.0, 0.0]).unwrap(), "b");
    assert_eq!(selector.select(&[2.5, 0.0]).unwrap(), "a");
    assert_eq!(selector.labels(), ["b", "a"]);
}

#[test]
fn classifiers_of_both_kernels() {
    let text = r#"{"algorithm": "svm", "trained": true, "model_names": ["b", "a"], "kernel_type": "Linear", "gamma": 9,
        "linear_classifiers": [{"model_name": "a", "weights": [2, 1], "rho": 0.5}],
        "rbf_classifiers": [{"model_name": "b", "alpha": [1.5, -0.5], "support_vectors": [[0.6, 0.8], [1, 1]],
            "rho": -0.25, "gamma": 2}, {"model_name": "a", "alpha": [1], "support_vectors": [[1, 1]], "rho": 0, "gamma": 1}]}"#;
    let selector = Selector::from_json(text).unwrap();
    // The unit vector is (0.6, 0.8).
    let far = 0.4_f64.powi(2) + 0.2_f64.powi(2);
    let expected = [("a", 1.2 + 0.8 - 0.5), ("b", 1.5 - 0.5 * (-2.0 * far).exp() + 0.25), ("a", (-far).exp())];
    for ((label, score), (expected_label, expected)) in selector.scores(&[3.0, 4.0]).unwrap().into_iter().zip(expected)
    {
        assert_eq!(label, expected_label);
        assert!((score - expected).abs() < 1e-15, "{score} {expected}");
    }
    assert_eq!(selector.select(&[3.0, 4.0]).unwrap(), "a");
    // A vector of zeros stays as it is.
    assert_eq!(selector.scores(&[0.0, 0.0]).unwrap()[0], ("a", -0.5));
    let none = r#"{"algorithm": "svm", "trained": true, "model_names": ["b", "a"], "kernel_type": "Rbf", "gamma": 1,
        "linear_classifiers": [], "rbf_classifiers": []}"#;
    let none = Selector::from_json(none).unwrap();
    assert_eq!((none.dimension(), none.select(&[1.0; 5]).unwrap()), (None, "b"));
    assert!(none.scores(&[1.0]).unwrap().is_empty());
    assert!(none.select(&[]).is_err());
}

#[test]
fn layers() {
    let text = r#"{"algorithm": "mlp", "trained": true, "model_names": ["b", "a"], "feature_dim": 2, "n_classes": 2,
        "hidden_sizes": [2], "dropout": 0.5, "layers": [
        {"type": "linear", "in_features": 2, "out_features": 2, "weight": [[1, 2], [3, -4]], "bias": [0.5, 0]},
        {"type": "batch_norm", "num_features": 2, "weight": [2, 1], "bias": [0, 1], "running_mean": [0.5, 0],
            "running_var": [3, 0], "eps": 1}, {"type": "relu"}, {"type": "dropout", "p": 0.5},
        {"type": "linear", "in_features": 2, "out_features": 2, "weight": [[1, 0], [0, 1]], "bias": null}]}"#;
    let selector = Selector::from_json(text).unwrap();
    // (3.5, -1) -> ((3.5 - 0.5) / 2 * 2, -1 / 1 + 1) -> (3, 0).
    assert_eq!(selector.scores(&[1.0, 1.0]).unwrap(), [("b", 3.0), ("a", 0.0)]);
    // (-4.5, -3) -> (-5, -2) -> (0, 0): the first of equal ones.
    assert_eq!(selector.scores(&[-5.0, -3.0]).unwrap(), [("b", 0.0), ("a", 0.0)]);
    assert_eq!(selector.select(&[-5.0, -3.0]).unwrap(), "b");
}

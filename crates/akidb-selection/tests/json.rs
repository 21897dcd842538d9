//! The reader and the writer of JSON: nothing panics, and nothing is lost.

mod common;

use akidb_selection::Selector;
use common::{Random, knn_json};
use proptest::prelude::*;

/// A k-means with one more field.
fn with_extra(value: &str) -> String {
    format!(
        r#"{{"algorithm":"kmeans","extra":{value},"trained":true,"num_clusters":1,"centroids":[[0.5,-1.0]],"cluster_models":["a"]}}"#
    )
}

#[test]
fn unknown_fields_are_kept_in_their_place() {
    for value in [
        "null",
        "true",
        "[]",
        "{}",
        "[[]]",
        "[[],[1]]",
        "[1,2]",
        "[1.5,-0.0]",
        "1e5",
        "0.1e-7",
        "\"\\u0000\\\"é\\n\"",
        "-0",
        "123456789012345678901234567890",
        "[123456789012345678901,0.5]",
        "[9007199254740993,1]",
        "[[1,2],[3,4]]",
        "[[1.5],[2.5]]",
        "[[1],[2,3]]",
        "[[1,2],3]",
        "[[1,2],[\"x\"]]",
        "[[1,2],[9007199254740993,1]]",
        "[1,\"x\",null]",
        "{\"b\":1,\"a\":{\"c\":[{}]}}",
        "{\"\":0}",
        "[[[1,2]],[[3,4]]]",
        "5e-324",
        "[1.7976931348623157e+308,5e-324]",
    ] {
        let text = with_extra(value);
        assert_eq!(Selector::from_json(&text).unwrap().to_json(), text);
    }
}

#[test]
fn numbers_are_rounded_correctly() {
    let mut random = Random::new(5);
    let values: Vec<f64> =
        (0..20_000).map(|_| f64::from_bits(random.next())).filter(|value| value.is_finite()).collect();
    let text = with_extra(&format!("{values:?}").replace(' ', ""));
    let again = Selector::from_json(&text).unwrap().to_json();
    let found: serde_json::Value = serde_json::from_str(&again).unwrap();
    let found: Vec<f64> = serde_json::from_value(found["extra"].clone()).unwrap();
    assert_eq!(found, values);
    // Halfway between two numbers, and a last digit that decides.
    for (digits, expected) in [
        ("9007199254740993.0", 9007199254740992.0_f64),
        ("9007199254740993.00000000000000000000000000001", 9007199254740994.0),
        ("2.2250738585072011e-308", 2.225073858507201e-308),
    ] {
        let again = Selector::from_json(with_extra(&format!("[{digits}]"))).unwrap().to_json();
        let found: serde_json::Value = serde_json::from_str(&again).unwrap();
        assert_eq!(found["extra"][0].as_f64().unwrap().to_bits(), expected.to_bits());
    }
}

#[test]
fn white_space_anywhere() {
    let mut spaced = String::new();
    for character in with_extra("[[1.5,2.5]]").chars() {
        match character {
            ':' | ',' | '[' | ']' | '{' | '}' => spaced.extend([" \t", &character.to_string(), "\r\n"]),
            other => spaced.push(other),
        }
    }
    assert_eq!(Selector::from_json(spaced).unwrap().to_json(), with_extra("[[1.5,2.5]]"));
}

/// Valid files of every kind.
fn valid(random: &mut Random) -> String {
    match random.below(4) {
        0 => knn_json(random, 4, 3, 2),
        1 => with_extra("{\"a\":[1,2,[3]]}"),
        2 => r#"{"algorithm": "svm", "trained": true, "model_names": ["a"], "kernel_type": "Rbf", "gamma": 1.0,
            "linear_classifiers": [{"model_name": "a", "weights": [1, 2], "rho": 0}], "rbf_classifiers":
            [{"model_name": "b", "alpha": [1], "support_vectors": [[1, 2]], "rho": 0, "gamma": 1}]}"#
            .to_owned(),
        _ => r#"{"algorithm": "mlp", "trained": true, "model_names": ["a"], "feature_dim": 2, "n_classes": 1,
            "hidden_sizes": [], "dropout": 0.1, "layers": [{"type": "relu"}, {"type": "batch_norm", "num_features": 2,
            "eps": null}, {"type": "linear", "in_features": 2, "out_features": 1, "weight": [[1, 2]], "bias": [0]}]}"#
            .to_owned(),
    }
}

const PIECES: [&str; 24] = [
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "\"",
    "\\",
    "-",
    "1",
    "0",
    "1e999",
    "null",
    "true",
    "[[",
    "]]",
    "9223372036854775808",
    "\u{0}",
    "\u{ff}",
    ".",
    "1e-400",
    "[1]",
    "\"k\": 3,",
    "18446744073709551615",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_mutated_file_is_read_or_refused(seed: u64, mutations in 1_usize..5) {
        let mut random = Random::new(seed);
        let mut text = valid(&mut random).into_bytes();
        for _ in 0..mutations {
            let start = random.below(text.len() + 1);
            let end = (start + random.below(12)).min(text.len());
            let piece = PIECES[random.below(PIECES.len())].as_bytes().to_vec();
            match random.below(3) {
                0 => drop(text.splice(start..end, piece)),
                1 => drop(text.splice(start..start, piece)),
                _ => drop(text.splice(start..end, [random.next() as u8])),
            }
        }
        let is_json = serde_json::from_slice::<serde_json::Value>(&text).is_ok();
        if let Ok(selector) = Selector::from_json(&text) {
            prop_assert!(is_json);
            let again = Selector::from_json(selector.to_json()).unwrap();
            prop_assert_eq!(again.to_json(), selector.to_json());
            let query = vec![0.5; selector.dimension().unwrap_or(3).min(1000)];
            let scores = selector.scores(&query);
            prop_assert_eq!(scores.is_ok(), selector.select(&query).is_ok());
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        prop_assert!(Selector::from_json(bytes).is_err());
    }
}

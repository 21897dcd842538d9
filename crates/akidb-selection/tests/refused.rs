//! What is refused, and how its errors name it.

use akidb_selection::{Error, Selector};

const KNN: &str = r#"{"algorithm": "knn", "trained": true, "k": 2, "embeddings": [[1.0, 2.0], [3.5, -4.0]],
    "labels": ["a", "b"], "qualities": [0.5, 0.25], "latencies": [10, 20], "extra": {"x": [1, 2.5, "y", null]}}"#;
const KMEANS: &str = r#"{"algorithm": "kmeans", "trained": true, "num_clusters": 2,
    "centroids": [[1.0, 2.0], [3.5, -4.0]], "cluster_models": ["a", "b"]}"#;
const SVM: &str = r#"{"algorithm": "svm", "trained": true, "model_names": ["a", "b"], "kernel_type": "Rbf", "gamma": 0.5,
    "linear_classifiers": [{"model_name": "a", "weights": [1.0, 0.5], "rho": 0.25}],
    "rbf_classifiers": [{"model_name": "b", "alpha": [1.0, -1.0], "support_vectors": [[1.0, 0.0], [0.0, 1.0]],
    "rho": 0.0, "gamma": 1.5}]}"#;
const MLP: &str = r#"{"algorithm": "mlp", "trained": true, "model_names": ["a", "b"], "feature_dim": 2, "n_classes": 2,
    "hidden_sizes": [3], "dropout": 0.1, "layers": [
    {"type": "linear", "in_features": 2, "out_features": 3, "weight": [[1.0, 2.0], [0.5, 0.5], [-1.0, 1.0]], "bias": null},
    {"type": "batch_norm", "num_features": 3, "running_var": [1.0, 2.0, 3.0], "eps": 0.001}, {"type": "relu"},
    {"type": "dropout", "p": 0.5},
    {"type": "linear", "in_features": 3, "out_features": 2, "weight": [[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]], "bias": [0.5, 0.25]}]}"#;

fn refusal(text: &str) -> String {
    Selector::from_json(text).expect_err(text).to_string()
}

/// Each case replaces the first text by the second.
fn check(valid: &str, cases: &[(&str, &str, &str)]) {
    Selector::from_json(valid).unwrap();
    for (old, new, message) in cases {
        assert!(valid.contains(old), "{old}");
        assert_eq!(refusal(&valid.replacen(old, new, 1)), *message, "{old} -> {new}");
    }
}

#[test]
fn fields_of_a_knn() {
    check(
        KNN,
        &[
            (r#""knn""#, r#""tree""#, r#"algorithm must be one of knn, kmeans, svm, mlp, found "tree""#),
            (r#""knn""#, "7", "algorithm must be a string, found 7"),
            (r#""trained": true"#, r#""trained": 1"#, "trained must be true or false, found 1"),
            (r#""trained": true, "#, "", "trained is missing"),
            (r#""k": 2"#, r#""k": 0"#, "k must be an integer of 1 or more, found 0"),
            (r#""k": 2"#, r#""k": 2.0"#, "k must be an integer of 1 or more, found 2.0"),
            (r#""k": 2"#, r#""k": true"#, "k must be an integer of 1 or more, found true"),
            (r#""k": 2"#, r#""k": 1, "k": 2"#, "k occurs twice in one object"),
            (r#""x": [1"#, r#""y": 0, "y": [1"#, "extra.y occurs twice in one object"),
            ("3.5, -4.0", "3.5", "embeddings[1] has 1 value and embeddings[0] has 2"),
            ("3.5, -4.0", "", "embeddings[1] is empty"),
            ("1.0, 2.0", "", "embeddings[0] is empty"),
            ("-4.0", "null", "embeddings[1][1] must be a number, found null"),
            ("-4.0", "[1]", "embeddings[1][1] must be a number, found a list"),
            ("[3.5, -4.0]", "7", "embeddings[1] must be a list of numbers, found 7"),
            ("-4.0", "1e999", "embeddings[1][1] is not a finite number"),
            ("[[1.0, 2.0], [3.5, -4.0]]", "[]", "labels has 2 values and embeddings has 0"),
            ("[[1.0, 2.0], [3.5, -4.0]]", "[1, 2]", "embeddings[0] must be a list of numbers, found a number"),
            (r#"["a", "b"]"#, r#"["a"]"#, "labels has 1 values and embeddings has 2"),
            (r#"["a", "b"]"#, r#"["a", 1]"#, "labels[1] must be a string, found 1"),
            ("0.25]", "0.25, 1]", "qualities has 3 values and embeddings has 2"),
            ("20]", "20.5]", "latencies[1] must be an integer, found a decimal number"),
            ("20]", "9223372036854775808]", "latencies[1] must be an integer of 64 bits, found 9223372036854775808"),
            (
                r#""extra""#,
                r#""format_version": 2, "extra""#,
                "format_version is 2, and 1 is read: files of another version follow other rules",
            ),
            (
                r#""extra""#,
                r#""embedding_model": {"name": "m", "dimension": 3}, "extra""#,
                "embedding_model.dimension is 3, and the selector takes 2 values",
            ),
            (r#""extra": {"x": [1, 2.5"#, r#""extra": {"x": [1, 1e400"#, "extra.x[1] is not a finite number"),
            ("2.5, \"y\"", "NaN, \"y\"", "the selector is not valid JSON: expected a value at byte 181"),
        ],
    );
    let empty = r#"{"algorithm": "knn", "trained": true, "k": 1, "embeddings": [], "labels": []}"#;
    assert_eq!(refusal(empty), "embeddings is empty, and trained is true");
}

#[test]
fn fields_of_a_k_means() {
    check(
        KMEANS,
        &[
            ("-4.0", "-4.0, 1", "centroids[1] has 3 values and centroids[0] has 2"),
            (r#"["a", "b"]"#, r#"["a"]"#, "cluster_models has 1 values and centroids has 2"),
            ("[[1.0, 2.0], [3.5, -4.0]]", "[]", "centroids is empty, and trained is true"),
            (r#""num_clusters": 2,"#, "", "num_clusters is missing"),
        ],
    );
}

#[test]
fn fields_of_an_svm() {
    check(
        SVM,
        &[
            (r#""Rbf""#, r#""Poly""#, r#"kernel_type must be one of Linear, Rbf, found "Poly""#),
            (r#""gamma": 0.5,"#, "", "gamma is missing"),
            (r#"["a", "b"]"#, "[]", "model_names is empty, and trained is true"),
            (
                "[1.0, 0.5]",
                "[1.0]",
                "rbf_classifiers[0].support_vectors[0] has 2 values and linear_classifiers[0].weights has 1",
            ),
            (
                "[0.0, 1.0]",
                "[0.0]",
                "rbf_classifiers[0].support_vectors[1] has 1 value and linear_classifiers[0].weights has 2",
            ),
            (
                "[1.0, -1.0]",
                "[1.0]",
                "rbf_classifiers[0].support_vectors has 2 values and rbf_classifiers[0].alpha has 1",
            ),
            (r#""rho": 0.25"#, r#""rho": "x""#, r#"linear_classifiers[0].rho must be a number, found "x""#),
        ],
    );
}

#[test]
fn fields_of_an_mlp() {
    check(
        MLP,
        &[
            (
                r#""relu""#,
                r#""tanh""#,
                r#"layers[2].type must be one of linear, relu, batch_norm, dropout, found "tanh""#,
            ),
            (r#""in_features": 2"#, r#""in_features": 4"#, "layers[0].in_features is 4, and the layer gets 2 values"),
            (r#""out_features": 3"#, r#""out_features": 4"#, "layers[0].weight has 3 by 2 values, expected 4 by 2"),
            ("2.0, 3.0], \"eps\"", "-2.0, 3.0], \"eps\"", "layers[1].running_var[1] plus eps must be more than 0"),
            (r#""n_classes": 2"#, r#""n_classes": 3"#, "n_classes is 3 and model_names has 2 values"),
            ("[0.5, 0.25]", "[0.5]", "layers[4].bias has 1 values, expected 2"),
            ("[3]", "[0]", "hidden_sizes[0] must be an integer of 1 or more, found 0"),
        ],
    );
    // A size that no memory holds, and no list that has it.
    let huge = r#"{"algorithm": "mlp", "trained": true, "model_names": ["a"], "feature_dim": 4611686018427387904,
        "n_classes": 1, "hidden_sizes": [], "dropout": 0, "layers": [{"type": "batch_norm",
        "num_features": 4611686018427387904}]}"#;
    assert_eq!(refusal(huge), "layers end with 4611686018427387904 values and model_names has 1");
}

#[test]
fn texts_that_are_not_json() {
    for text in [
        "",
        "{",
        "[",
        "{\"a\"",
        "{\"a\":",
        "{\"a\": 1,}",
        "[1,]",
        "{} {}",
        "nul",
        "01",
        "1.",
        "-",
        "1e",
        "+1",
        ".5",
        "\"",
        "\"\\",
        "\"\\u12",
        "\"\\ud800\"",
        "\"\u{1}\"",
        "{1: 2}",
        "[1 2]",
        "tru",
        "\u{feff}{}",
        "NaN",
        "-Infinity",
    ] {
        assert!(matches!(Selector::from_json(text), Err(Error::Syntax { .. })), "{text:?}");
    }
    assert!(matches!(Selector::from_json(b"{\"\xff\": 1}"), Err(Error::Syntax { offset: 2, .. })));
    assert_eq!(refusal("[1]"), "a selector must be a JSON object, found a list");
}

#[test]
fn depth_and_length_are_bounded() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = |levels: usize| {
            let value = format!("{}1{}", open.repeat(levels), close.repeat(levels));
            KNN.replacen(r#""extra""#, &format!(r#""deep": {value}, "extra""#), 1)
        };
        Selector::from_json(nested(64)).unwrap();
        assert_eq!(Selector::from_json(nested(65)).unwrap_err(), Error::TooDeep { limit: 64 });
        assert_eq!(Selector::from_json(open.repeat(1_000_000)).unwrap_err(), Error::TooDeep { limit: 64 });
    }
    // Lists and objects count wherever they are: the layer of this file is in a list and in an object.
    let nested = |levels: usize| {
        MLP.replacen(r#""p""#, &format!(r#""deep": {}{}, "p""#, "[".repeat(levels), "]".repeat(levels)), 1)
    };
    Selector::from_json(nested(62)).unwrap();
    assert_eq!(Selector::from_json(nested(63)).unwrap_err(), Error::TooDeep { limit: 64 });
    let size = KNN.len() as u64;
    Selector::from_json_within(KNN, size).unwrap();
    assert_eq!(Selector::from_json_within(KNN, size - 1).unwrap_err(), Error::TooLarge { size, limit: size - 1 });
}

#[test]
fn parts_are_bounded() {
    // 10 000 of them whatever the limit, and else one for 64 bytes that may be read.
    let with =
        |count: usize| KNN.replacen(r#""extra""#, &format!(r#""list": [""{}], "extra""#, ",null".repeat(count)), 1);
    // The others are 10 brackets and braces, 30 quotation marks and 13 commas.
    let few = 10_000 - 53 + 1;
    Selector::from_json_within(with(few - 1), 80_000).unwrap();
    assert_eq!(Selector::from_json_within(with(few), 80_000).unwrap_err(), Error::TooManyParts { limit: 10_000 });
    Selector::from_json_within(with(few), 64 * 10_001).unwrap();
    assert_eq!(
        Selector::from_json_within(with(few + 1), 64 * 10_001).unwrap_err().to_string(),
        "the selector has more than 10001 lists, objects, strings and other values: raise max_bytes"
    );
    // Brackets and quotation marks count twice or once, and numbers in lists of their own not at all.
    let marks = |value: &str| KNN.replacen(r#""extra""#, &format!(r#""list": [{value}], "extra""#), 1);
    assert!(Selector::from_json_within(marks(&["0"; 20_000].join(",")), 80_000).is_ok());
    assert!(Selector::from_json_within(marks(&["[]"; 5_100].join(",")), 80_000).is_err());
    assert!(Selector::from_json_within(marks(&["[1]"; 5_100].join(",")), 80_000).is_err());
}

#[test]
fn a_key_is_compared_as_it_is_read() {
    for second in ["a[1]", r"a\u005b1]", r"a[\u0031]"] {
        let text = KNN.replacen(r#""extra""#, &format!(r#""a[1]": [1], "{second}": [2], "extra""#), 1);
        assert!(refusal(&text).contains("occurs twice in one object"), "{second}");
    }
}

#[test]
fn queries() {
    for text in [KNN, KMEANS, SVM, MLP] {
        let selector = Selector::from_json(text).unwrap();
        let refused = |vector: &[f64]| selector.select(vector).unwrap_err().to_string();
        assert_eq!(refused(&[1.0]), "the vector has 1 value, and the selector takes 2");
        assert_eq!(refused(&[]), "the vector has 0 values, and the selector takes 2");
        assert_eq!(refused(&[1.0, f64::NAN]), "the vector is not finite: its value 1 is NaN");
        assert_eq!(
            selector.scores(&[f64::INFINITY, 0.0]).unwrap_err().to_string(),
            "the vector is not finite: its value 0 is inf"
        );
        let error = selector.select_batch(&[vec![1.0, 2.0], vec![1.0]]).unwrap_err();
        assert!(matches!(error, Error::Query { index: Some(1), .. }), "{error}");
        let empty: [Vec<f64>; 0] = [];
        assert!(selector.select_batch(&empty).unwrap().is_empty());
        let untrained = Selector::from_json(text.replacen("true", "false", 1)).unwrap();
        assert!(!untrained.is_trained());
        assert_eq!(untrained.select(&[1.0, 2.0]), Err(Error::NotTrained));
        assert_eq!(untrained.select_batch(&empty), Err(Error::NotTrained));
    }
}

#[test]
fn sums_of_votes_that_overflow() {
    let text = r#"{"algorithm": "knn", "trained": true, "k": 2, "embeddings": [[0], [1], [9]], "labels": ["a", "a", "b"],
        "qualities": [1.79e308, 1.79e308, 1.79e308]}"#;
    let selector = Selector::from_json(text).unwrap();
    assert_eq!(selector.select(&[0.0]), Err(Error::NotFinite { label: "a".to_owned(), index: None }));
    assert_eq!(selector.scores(&[0.0]).unwrap_err(), Error::NotFinite { label: "a".to_owned(), index: None });
    let error = selector.select_batch(&[[8.0], [0.0]]).unwrap_err();
    assert_eq!(error, Error::NotFinite { label: "a".to_owned(), index: Some(1) });
    assert_eq!(selector.select(&[8.0]).unwrap(), "a");
}

#[test]
fn scores_that_overflow() {
    let selector = Selector::from_json(MLP.replace("3.0, 2.0, 1.0", "1e308, 1e308, 1e308")).unwrap();
    let error = selector.select(&[1e5, 1e5]).unwrap_err();
    assert_eq!(error, Error::NotFinite { label: "b".to_owned(), index: None });
    let error = selector.select_batch(&[[0.0, 0.0], [1e5, 1e5]]).unwrap_err();
    assert_eq!(error, Error::NotFinite { label: "b".to_owned(), index: Some(1) });
}

#[test]
fn files() {
    let error = Selector::load("/nowhere/knn_model.json").unwrap_err();
    assert!(matches!(&error, Error::Unreadable { path, .. } if path == "/nowhere/knn_model.json"), "{error}");
}

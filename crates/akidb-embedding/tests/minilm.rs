//! all-MiniLM-L6-v2's real weights, all the way: Rust, Python, MLX and back.
#![cfg(feature = "python")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use akidb_embedding::{
    EmbedOptions, EmbeddingError, EmbeddingProvider, MlBridge, Overflow, PyMlBridge, PythonEnvironment,
};
use common::{minilm, request, sentences};

#[tokio::test]
async fn what_cannot_be_embedded_is_the_callers_fault_alone() {
    let provider = minilm();
    let refuse = EmbedOptions::default().with_on_overflow(Overflow::Error);
    let error = provider.embed_with(request(["short", &"word ".repeat(600)]), refuse).await.unwrap_err();
    assert!(matches!(&error, EmbeddingError::InvalidInput { .. }), "{error:?}");
    assert_eq!(error.index(), Some(1));

    let cut = |dimensions| EmbedOptions::default().with_dimensions(dimensions);
    for (options, says) in [
        (cut(0), "from 1 to 384"),
        (cut(385), "from 1 to 384"),
        (cut(100), "not trained for vectors shorter"),
        (EmbedOptions::default().with_input_type("nonsense"), "nonsense"),
    ] {
        let error = provider.embed_with(request(["a"]), options).await.unwrap_err();
        assert!(matches!(&error, EmbeddingError::InvalidInput(failure) if failure.message.contains(says)), "{error:?}");
    }
    let mut other = request(["a"]);
    other.model = "qwen3-0.6b-4bit".to_owned();
    assert!(matches!(provider.embed_batch(other).await, Err(EmbeddingError::ModelNotFound { .. })));
}

#[tokio::test]
async fn nothing_gives_nothing_and_the_model_is_known() {
    let provider = minilm();
    let none = provider.embed_batch(request([""; 0])).await.unwrap();
    assert_eq!((none.embeddings.len(), none.usage.total_tokens), (0, 0));
    let info = provider.model_info().await.unwrap();
    assert_eq!((info.model.as_str(), info.dimension, info.max_tokens), ("minilm-l6-v2", 384, 256));
    provider.health_check().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_text_does_not_wait_for_a_batch() {
    let bridge = Arc::new(PyMlBridge::load("akidb_mlx.ml_funcs", PythonEnvironment::default()).await.unwrap());
    bridge.generate_embedding("the model is loaded").await.unwrap();
    let batch = tokio::spawn({
        let bridge = Arc::clone(&bridge);
        async move { bridge.generate_embeddings_batch(&sentences(1000)).await }
    });
    // They take turns with the batch, which is some twenty steps long; without that one would wait for its end.
    let mut answered = 0;
    while !batch.is_finished() {
        bridge.generate_embedding(&format!("a single text {answered}")).await.unwrap();
        answered += 1;
    }
    assert_eq!(batch.await.unwrap().unwrap().len(), 1000);
    assert!(answered > 4, "{answered} single texts were answered beside the batch");
    bridge.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_callers_get_their_own_vectors() {
    let texts = sentences(200);
    let together = minilm().embed_batch(request(&texts)).await.unwrap().embeddings;
    let tasks: Vec<_> = texts
        .into_iter()
        .map(|text| tokio::spawn(async move { minilm().embed_batch(request([text])).await.unwrap().embeddings }))
        .collect();
    for (task, expected) in tasks.into_iter().zip(together) {
        let alone = tokio::time::timeout(Duration::from_secs(60), task).await.unwrap().unwrap();
        // Batches differ, and with them the order of additions.
        assert!(alone[0].iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}

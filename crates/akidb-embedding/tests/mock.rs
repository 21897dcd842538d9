//! What needs no Python: the stand-ins, the traits as objects, and the conversions between errors.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use akidb_embedding::{
    BatchEmbeddingRequest, EmbeddingError, EmbeddingProvider, Failure, MlBridge, MlBridgeError, MockEmbeddingProvider,
    MockMlBridge, MockRerankProvider, PythonError, RerankOptions, RerankProvider,
};

#[tokio::test]
async fn vectors_depend_on_the_text_alone() {
    let provider: Arc<dyn EmbeddingProvider> = Arc::new(MockEmbeddingProvider::with_dimension(4));
    let request = BatchEmbeddingRequest::new("mock-embed-4", ["one", "two words", "one"]);
    let response = provider.embed_batch(request.clone()).await.unwrap();
    assert_eq!(response.embeddings[0], response.embeddings[2]);
    assert_ne!(response.embeddings[0], response.embeddings[1]);
    // Computed apart, in Python: FNV-1a, then SplitMix64.
    let expected = [0.522594, 0.213478, 0.310557, -0.764773];
    for (value, expected) in response.embeddings[0].iter().zip(expected) {
        assert!((value - expected).abs() < 1e-6, "{:?}", response.embeddings[0]);
    }
    assert_eq!(response.usage.total_tokens, 4);
    let other = MockEmbeddingProvider::with_dimension(4).with_latency(20).embed_batch(request).await.unwrap();
    assert_eq!(other.embeddings, response.embeddings);
    assert!(other.usage.duration_ms >= 20);
}

#[tokio::test]
async fn vectors_are_normalised_only_if_that_is_asked() {
    let provider = MockEmbeddingProvider::new();
    let mut request = BatchEmbeddingRequest::new(MockEmbeddingProvider::DEFAULT_MODEL, ["a text"]);
    let length = |vector: &[f32]| vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    let unit = provider.embed_batch(request.clone()).await.unwrap().embeddings.remove(0);
    assert_eq!(unit.len(), 512);
    assert!((length(&unit) - 1.0).abs() < 1e-6);
    request.normalize = false;
    let raw = provider.embed_batch(request).await.unwrap().embeddings.remove(0);
    assert!(length(&raw) > 10.0);
    let scale = length(&raw);
    assert!(raw.iter().zip(&unit).all(|(raw, unit)| (raw / scale - unit).abs() < 1e-6));
}

#[tokio::test]
async fn another_model_is_refused_and_no_text_gives_no_vector() {
    let provider = MockEmbeddingProvider::with_model("mine", 8);
    let error = provider.embed_batch(BatchEmbeddingRequest::new("yours", ["a"])).await.unwrap_err();
    assert!(matches!(&error, EmbeddingError::ModelNotFound(failure) if failure.message.contains("yours")), "{error}");
    let none = provider.embed_batch(BatchEmbeddingRequest::new("mine", [""; 0])).await.unwrap();
    assert!(none.embeddings.is_empty());
    assert_eq!(provider.model_info().await.unwrap().dimension, 8);
    provider.health_check().await.unwrap();
}

#[tokio::test]
async fn a_reranker_that_counts_shared_words() {
    let provider: Arc<dyn RerankProvider> = Arc::new(MockRerankProvider);
    let documents = ["the cat", "a dog and a cat", "a cat", "birds"].map(str::to_owned).to_vec();
    let ranked = provider.rerank("a cat", documents.clone(), Some(3), RerankOptions::default()).await.unwrap();
    assert_eq!(ranked, [(1, 1.0), (2, 1.0), (0, 0.5)]);
    let all = provider.rerank("a cat", documents, None, RerankOptions::default()).await.unwrap();
    assert_eq!(all[3], (3, 0.0));
    let pairs = vec![("a cat".to_owned(), "the cat".to_owned()), (String::new(), "x".to_owned())];
    let scores = provider.scores(pairs, RerankOptions::default()).await.unwrap();
    assert_eq!(scores.rows().collect::<Vec<_>>(), [[0.5], [0.0]]);
    assert_eq!((scores.token_counts, scores.usage.total_tokens), (vec![4, 1], 5));
    let error = provider.rerank("a", Vec::new(), Some(0), RerankOptions::default()).await.unwrap_err();
    assert!(matches!(&error, EmbeddingError::InvalidInput(failure) if failure.message.contains("top_k")), "{error}");
    assert_eq!(provider.model_info().await.unwrap().model, MockRerankProvider::MODEL);
    provider.health_check().await.unwrap();
}

#[tokio::test]
async fn the_bridge_counts_characters_and_bytes() {
    let bridge: Arc<dyn MlBridge> = Arc::new(MockMlBridge);
    let text = "Schöne Grüße, Ärzte in Köln";
    let entities = bridge.extract_entities(text).await.unwrap();
    let found: Vec<(&str, usize, usize)> = entities.iter().map(|e| (e.text.as_str(), e.start, e.end)).collect();
    assert_eq!(found, [("Schöne", 0, 6), ("Grüße", 7, 12), ("Ärzte", 14, 19), ("Köln", 23, 27)]);
    assert!(entities.iter().all(|entity| text[entity.start_byte..entity.end_byte] == entity.text));
    let one = bridge.generate_embedding(text).await.unwrap();
    assert_eq!(one.len(), 384);
    assert_eq!(bridge.generate_embeddings_batch(&[text.to_owned()]).await.unwrap(), [one]);
    assert_eq!(bridge.summarize(&["first".to_owned(), "second".to_owned()]).await.unwrap(), "first");
    assert!(bridge.health_check().await.unwrap());
}

fn raised(types: &[&str]) -> Failure {
    let mut python = PythonError::default();
    python.types = types.iter().map(|&name| name.to_owned()).collect();
    python.message = "what was wrong".to_owned();
    python.traceback = "Traceback (most recent call last):\n  …\nIt: what was wrong\n".to_owned();
    let mut failure = Failure::from("what was wrong");
    failure.index = Some(3);
    failure.python = Some(Box::new(python));
    failure
}

#[test]
fn an_error_keeps_its_meaning_on_the_way_between_the_enums() {
    let ours = |name: &str| format!("akidb_mlx.errors.{name}");
    type Variant = fn(Failure) -> EmbeddingError;
    let cases: [(String, Variant); 7] = [
        (ours("InvalidInputError"), EmbeddingError::InvalidInput),
        (ours("ModelNotFoundError"), EmbeddingError::ModelNotFound),
        (ours("ServiceOverloadedError"), EmbeddingError::ServiceUnavailable),
        (ours("InferenceError"), EmbeddingError::Internal),
        ("model_cache.errors.ModelCacheError".to_owned(), EmbeddingError::ModelNotFound),
        ("model_cache.errors.CorruptModelError".to_owned(), EmbeddingError::Internal),
        ("builtins.ValueError".to_owned(), EmbeddingError::Internal),
    ];
    for (name, variant) in cases {
        let failure = raised(&["users.Subclass", &name, "model_cache.errors.ModelCacheError"][..2]);
        let error = variant(failure.clone());
        let bridged = MlBridgeError::from(error.clone());
        assert!(matches!(&bridged, MlBridgeError::FunctionCall(same) if same.python == failure.python));
        assert_eq!(EmbeddingError::from(bridged), error);
        // Also where Python raised nothing.
        let ours = variant(Failure::from("refused by the crate"));
        assert_eq!(EmbeddingError::from(MlBridgeError::from(ours.clone())), ours);
        // And where the exception came through a bridge.
        assert_eq!(EmbeddingError::from(MlBridgeError::FunctionCall(failure)), error);
    }
    let init = MlBridgeError::PythonInit("no Python".into());
    assert_eq!(EmbeddingError::from(init), EmbeddingError::Internal("no Python".into()));
}

#[test]
fn a_refusal_of_the_bridge_is_one_of_the_provider_too() {
    let mut failure = Failure::from("full");
    (failure.retry_after, failure.index) = (Some(Duration::from_secs(1)), Some(2));
    let error = MlBridgeError::FunctionCall(failure);
    assert_eq!((error.retry_after(), error.index()), (Some(Duration::from_secs(1)), Some(2)));
    let error = EmbeddingError::from(error);
    assert!(matches!(error, EmbeddingError::ServiceUnavailable { .. }));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
}

#[test]
fn an_error_that_main_returns_is_one_line() {
    let error = EmbeddingError::InvalidInput(raised(&["akidb_mlx.errors.InvalidInputError"]));
    assert_eq!(format!("{error:?}"), "InvalidInput: what was wrong");
    let boxed: Box<dyn Error> = Box::new(MlBridgeError::from(error));
    assert_eq!(format!("{boxed:?}"), "FunctionCall: what was wrong");
}

#[test]
fn the_source_of_an_error_is_the_exception_with_its_traceback() {
    let error = EmbeddingError::InvalidInput(raised(&["akidb_mlx.errors.InvalidInputError"]));
    assert_eq!(error.to_string(), "what was wrong");
    assert_eq!(error.index(), Some(3));
    let source = error.source().unwrap();
    assert!(source.to_string().starts_with("Traceback"), "{source}");
    let exception = source.downcast_ref::<PythonError>().unwrap();
    assert_eq!(exception.type_name(), "akidb_mlx.errors.InvalidInputError");
}

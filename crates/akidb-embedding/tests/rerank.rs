//! A tiny reranker, all the way: Rust, Python, MLX and back; and stand-ins that refuse, hang and close.
#![cfg(feature = "python")]

mod common;

use std::time::Duration;

use akidb_embedding::{
    EmbeddingError, MlxEmbeddingProvider, MlxRerankProvider, Overflow, PythonEnvironment, RerankOptions,
    RerankProvider, ServiceOptions,
};
use common::{RERANKER_STAND_IN, abandon, ask, eventually, made_by, repository};
use pyo3::prelude::*;

type Pairs = Vec<(String, String)>;

fn path(name: &str) -> String {
    repository().join("tests/goldens").join(name).to_str().unwrap().to_owned()
}

fn options() -> ServiceOptions {
    ServiceOptions::default().with_device("cpu")
}

async fn load(name: &str) -> MlxRerankProvider {
    MlxRerankProvider::load(&path(name), options()).await.unwrap()
}

/// The pairs that CrossEncoder scored, and its scores without a prompt and with one.
fn golden(name: &str) -> (Pairs, Vec<f32>, Vec<f32>) {
    PythonEnvironment::default().with_sys_path(repository()).start().unwrap();
    Python::attach(|py| {
        let pairs = py.import("tests.goldens.make_rerankers").unwrap().call_method0("pairs").unwrap();
        let arrays = py.import("numpy").unwrap().call_method1("load", (path(&format!("{name}.npz")),)).unwrap();
        let scores = |key| {
            let values = arrays.get_item(key).unwrap().call_method0("ravel").unwrap();
            values.call_method0("tolist").unwrap().extract().unwrap()
        };
        (pairs.extract().unwrap(), scores("default"), scores("own"))
    })
}

fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-5));
}

#[tokio::test]
async fn scores_are_cross_encoders() {
    for (name, labels) in [("reranker-bert", 1), ("reranker-bert-labels", 3)] {
        let provider = load(name).await;
        let (pairs, default, own) = golden(name);
        let scores = provider.scores(pairs.clone(), RerankOptions::default()).await.unwrap();
        assert_eq!((scores.model, scores.labels), (path(name), labels));
        assert_close(&scores.values, &default);
        assert_eq!(scores.token_counts.len(), pairs.len());
        assert_eq!(scores.usage.total_tokens, scores.token_counts.iter().sum::<usize>());
        assert!(scores.truncated.iter().any(|cut| *cut) && !scores.truncated.iter().all(|cut| *cut));
        let prompt = RerankOptions::default().with_prompt("Answer in English: ");
        let prompted = provider.scores(pairs.clone(), prompt).await.unwrap();
        assert_close(&prompted.values, &own);
        assert_eq!(prompted.rows().len(), pairs.len());
        assert!(prompted.rows().all(|row| row.len() == labels));
        let info = provider.model_info().await.unwrap();
        assert_eq!((info.labels.len(), info.max_tokens), (labels, 64));
        provider.health_check().await.unwrap();
        provider.close(true).await.unwrap();
    }
}

#[tokio::test]
async fn documents_are_ordered_by_their_scores() {
    let provider = load("reranker-bert").await;
    let documents: Vec<String> =
        ["Paris", "a longer text", "Paris", "", "Hello, world!"].into_iter().map(str::to_owned).collect();
    let pairs: Pairs = documents.iter().map(|document| ("capital?".to_owned(), document.clone())).collect();
    let scores = provider.scores(pairs, RerankOptions::default()).await.unwrap().values;
    let ranked = provider.rerank("capital?", documents.clone(), None, RerankOptions::default()).await.unwrap();
    let mut indices: Vec<usize> = ranked.iter().map(|(index, _)| *index).collect();
    assert!(ranked.iter().all(|(index, score)| (score - scores[*index]).abs() < 1e-5));
    assert!(ranked.is_sorted_by(|(_, one), (_, other)| one >= other));
    let twins: Vec<usize> = indices.iter().copied().filter(|index| [0, 2].contains(index)).collect();
    assert_eq!(twins, [0, 2]);
    let best = provider.rerank("capital?", documents, Some(2), RerankOptions::default()).await.unwrap();
    assert_eq!(best.iter().map(|(index, _)| *index).collect::<Vec<_>>(), indices[..2]);
    indices.sort_unstable();
    assert_eq!(indices, [0, 1, 2, 3, 4]);
    let none = provider.rerank("capital?", Vec::new(), None, RerankOptions::default()).await.unwrap();
    assert!(none.is_empty());
    provider.close(false).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_scored_is_the_callers_fault() {
    let provider = load("reranker-bert-labels").await;
    let pairs: Pairs = vec![("a".to_owned(), "b".to_owned()), ("a".to_owned(), "word ".repeat(99))];
    for (options, says, index) in [
        (RerankOptions::default().with_prompt_name("nonsense"), "none of this model's prompts: news, web", None),
        (RerankOptions::default().with_prompt_name("web").with_prompt("x"), "not both", None),
        (RerankOptions::default().with_on_overflow(Overflow::Chunk), "with 3 labels none is the best", None),
        (RerankOptions::default().with_on_overflow(Overflow::Error), "pair 1 has", Some(1)),
    ] {
        let error = provider.scores(pairs.clone(), options).await.unwrap_err();
        assert!(matches!(&error, EmbeddingError::InvalidInput(failure) if failure.message.contains(says)), "{error:?}");
        assert_eq!(error.index(), index);
    }
    let error = provider.rerank("a", vec!["b".to_owned()], None, RerankOptions::default()).await.unwrap_err();
    assert!(
        matches!(&error, EmbeddingError::InvalidInput(failure) if failure.message.contains("gives 3")),
        "{error:?}"
    );
    let one = MlxRerankProvider::load(&path("reranker-bert"), options().with_max_length(16)).await.unwrap();
    assert_eq!(one.model_info().await.unwrap().max_tokens, 16);
    let error = one.rerank("a", Vec::new(), Some(0), RerankOptions::default()).await.unwrap_err();
    assert!(matches!(&error, EmbeddingError::InvalidInput(failure) if failure.message.contains("top_k")), "{error:?}");
}

#[tokio::test]
async fn each_kind_of_model_has_its_provider_and_its_options() {
    let error = MlxRerankProvider::load(&path("tiny-bert"), options()).await.unwrap_err();
    assert!(error.to_string().contains("akidb_mlx.EmbeddingService"), "{error:?}");
    let error = MlxRerankProvider::load(&path("reranker-bert"), options().with_dimensions(8)).await.unwrap_err();
    assert!(matches!(&error, EmbeddingError::InvalidInput(failure) if failure.message.contains("dimensions")));
    let error = MlxEmbeddingProvider::load(&path("tiny-bert"), options().with_max_length(8)).await.unwrap_err();
    assert!(matches!(&error, EmbeddingError::InvalidInput(failure) if failure.message.contains("max_length")));
}

/// A stand-in with some of its methods replaced, and the provider around it.
fn stand_in(methods: &str) -> (Py<PyAny>, MlxRerankProvider) {
    let program = format!("{RERANKER_STAND_IN}\nclass Other(Ranker):\n{methods}\n\ndef make():\n    return Other()\n");
    let made = made_by(&program);
    let provider = MlxRerankProvider::from_reranker(Python::attach(|py| made.clone_ref(py))).unwrap();
    (made, provider)
}

fn documents() -> Vec<String> {
    vec!["one".to_owned(), "three".to_owned(), "".to_owned()]
}

#[tokio::test]
async fn options_and_pairs_cross_unchanged() {
    let (made, provider) = stand_in("    pass");
    let plain = provider.rerank("ünï\0", documents(), None, RerankOptions::default()).await.unwrap();
    assert_eq!(plain, [(1, 5.0), (0, 3.0), (2, 0.0)]);
    let options =
        RerankOptions::default().with_prompt("p").with_on_overflow(Overflow::Error).with_timeout(Duration::MAX);
    provider.scores(vec![("q".to_owned(), "d".to_owned())], options).await.unwrap();
    provider.scores(Vec::new(), RerankOptions::default().with_prompt_name("n")).await.unwrap();
    assert!(ask::<bool>(
        &made,
        c"it.calls == [([('ünï\\0', d) for d in ('one', 'three', '')], {}), ([('q', 'd')], {'prompt': 'p', 'on_overflow': \
          'error'}), ([], {'prompt_name': 'n'})]"
    ));
}

#[tokio::test]
async fn a_dropped_future_and_a_deadline_cancel_the_call() {
    let (made, provider) = stand_in("    def resolve(self, future, pairs): pass");
    abandon(provider.rerank("q", documents(), None, RerankOptions::default())).await;
    let limit = RerankOptions::default().with_timeout(Duration::from_millis(300));
    let error = provider.rerank("q", documents(), None, limit).await.unwrap_err();
    assert!(matches!(&error, EmbeddingError::ServiceUnavailable(failure) if failure.message.contains("timeout")));
    eventually(|| ask(&made, c"len(it.futures) >= 1 and it.futures[-1].cancelled()")).await;
    assert!(ask::<bool>(&made, c"0 < it.calls[-1][1]['timeout'] <= 0.3"));
}

#[tokio::test]
async fn errors_health_and_closing_are_the_embedding_providers() {
    let (made, provider) = stand_in(
        "    healthy = True
    def submit(self, pairs, **options):
        if pairs[0][0] == 'full':
            raise errors.ServiceOverloadedError('full', 2.5)
        return super().submit(pairs, **options)
    def health_check(self): return {'status': 'ok' if self.healthy else 'failed', 'reason': 'it hangs'}",
    );
    let error = provider.rerank("full", documents(), None, RerankOptions::default()).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_millis(2500)));
    provider.health_check().await.unwrap();
    ask::<Option<bool>>(&made, c"setattr(it, 'healthy', False)");
    let error = provider.health_check().await.unwrap_err();
    assert!(matches!(&error, EmbeddingError::ServiceUnavailable(failure) if failure.message.contains("it hangs")));
    let said = format!("{provider:?}");
    assert!(said.contains("MlxRerankProvider") && said.contains("stand-in") && said.contains("open: true"), "{said}");
    provider.close(true).await.unwrap();
    let error = provider.rerank("q", documents(), None, RerankOptions::default()).await.unwrap_err();
    assert!(matches!(&error, EmbeddingError::ServiceUnavailable(failure) if failure.message.contains("closed")));
    assert_eq!(ask::<Vec<bool>>(&made, c"it.closed"), [true]);
}

#[tokio::test]
async fn what_is_not_a_batch_of_scores_is_an_internal_error() {
    for wrong in
        ["None", "ScoreBatch(np.zeros(2), [1, 1], [False] * 2, 'x')", "ScoreBatch(np.zeros(3), [1], [False], 'x')"]
    {
        let (_, provider) = stand_in(&format!("    def resolve(self, future, pairs): future.set_result({wrong})"));
        let error = provider.rerank("q", documents(), None, RerankOptions::default()).await.unwrap_err();
        assert!(matches!(error, EmbeddingError::Internal { .. }), "{error:?}");
    }
}

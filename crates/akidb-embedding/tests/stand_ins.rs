//! What the provider does when the service refuses, fails, hangs or closes; the service is a stand-in in Python.
#![cfg(feature = "python")]

mod common;

use std::error::Error;
use std::time::{Duration, Instant};

use akidb_embedding::{EmbedOptions, EmbeddingError, EmbeddingProvider, MlxEmbeddingProvider, PythonError};
use common::{STAND_IN, abandon, ask, eventually, made_by, request, service};
use pyo3::prelude::*;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// A stand-in with some of its methods replaced, and the provider around it.
fn stand_in(methods: &str) -> (Py<PyAny>, MlxEmbeddingProvider) {
    let made = made_by(&format!("{STAND_IN}\nclass Other(StandIn):\n{methods}\n\ndef make():\n    return Other()\n"));
    let provider = MlxEmbeddingProvider::from_service(Python::attach(|py| made.clone_ref(py))).unwrap();
    (made, provider)
}

const NEVER_ANSWERS: &str = "    def resolve(self, future, texts): pass";

fn within(limit: Duration) -> EmbedOptions {
    EmbedOptions::default().with_timeout(limit)
}

#[tokio::test]
async fn texts_and_vectors_cross_unchanged() {
    let provider = service(STAND_IN);
    let texts = ["", "a\0b", "ünï", "\u{1f980}\u{1f980}"];
    let response = provider.embed_batch(request(texts)).await.unwrap();
    let lengths: Vec<f32> = texts.iter().map(|text| text.chars().count() as f32).collect();
    for (index, (vector, length)) in response.embeddings.iter().zip(&lengths).enumerate() {
        assert_eq!(*vector, [*length, index as f32, 0.5, -1.0]);
    }
    assert_eq!(response.usage.total_tokens, 8);
    let flat = provider.embed_flat(request(texts), EmbedOptions::default()).await.unwrap();
    assert_eq!(flat.values, response.embeddings.concat());
    assert_eq!(flat.token_counts, [0, 3, 3, 2]);
}

#[tokio::test]
async fn every_exception_has_its_variant_and_keeps_its_traceback() {
    let (_, provider) = stand_in(
        "    def submit(self, texts, **options):
        if texts[0].startswith('later '):
            future = Future()
            future.set_exception(eval(texts[0][6:]))
            return future
        raise eval(texts[0])",
    );
    type Variant = fn(akidb_embedding::Failure) -> EmbeddingError;
    let cases: [(&str, Variant); 9] = [
        ("errors.InvalidInputError('text 7 is bad', 7)", EmbeddingError::InvalidInput),
        ("errors.ConfigurationError('a setting')", EmbeddingError::InvalidInput),
        ("errors.ModelNotFoundError('no model')", EmbeddingError::ModelNotFound),
        ("errors.ModelLoadError('damaged')", EmbeddingError::Internal),
        ("errors.InferenceError('no vector', 0)", EmbeddingError::Internal),
        ("errors.DeadlineExceededError('too late')", EmbeddingError::ServiceUnavailable),
        ("errors.ServiceClosedError('closed')", EmbeddingError::ServiceUnavailable),
        ("errors.ServiceOverloadedError('full', 2.5)", EmbeddingError::ServiceUnavailable),
        ("KeyboardInterrupt('by hand')", EmbeddingError::Internal),
    ];
    for (raise, variant) in cases {
        for raise in [raise.to_owned(), format!("later {raise}")] {
            let error = provider.embed_batch(request([&raise])).await.unwrap_err();
            assert_eq!(variant(error.failure().clone()), error, "{raise}");
            let source = error.source().unwrap().downcast_ref::<PythonError>().unwrap();
            assert!(source.to_string().contains(&source.message), "{source}");
            if !raise.starts_with("later") {
                assert!(source.traceback.contains("in submit"), "{raise}: {source:?}");
            }
        }
    }
    let bad = provider.embed_batch(request([cases[0].0])).await.unwrap_err();
    assert_eq!((bad.to_string().as_str(), bad.index()), ("text 7 is bad", Some(7)));
    let full = provider.embed_batch(request([cases[7].0])).await.unwrap_err();
    assert_eq!(full.retry_after(), Some(Duration::from_millis(2500)));
}

#[tokio::test]
async fn what_is_not_a_batch_is_an_internal_error() {
    let doubles = "EmbeddingBatch(np.zeros((1, 4)), [1], [False], 'x', 4)";
    for wrong in ["None", "{'vectors': 1}", "texts", doubles] {
        let (_, provider) = stand_in(&format!("    def resolve(self, future, texts): future.set_result({wrong})"));
        let error = timeout(Duration::from_secs(10), provider.embed_batch(request(["a"]))).await.unwrap().unwrap_err();
        assert!(matches!(error, EmbeddingError::Internal { .. }), "{error:?}");
    }
    let (_, forgetful) = stand_in("    def submit(self, texts, **options): return Future()");
    let error = timeout(Duration::from_secs(10), forgetful.embed_batch(request(["a"]))).await.unwrap().unwrap_err();
    assert!(matches!(&error, EmbeddingError::Internal(failure) if failure.message.contains("dropped")), "{error:?}");
}

#[tokio::test]
async fn a_dropped_future_cancels_its_call() {
    let (made, provider) = stand_in(NEVER_ANSWERS);
    assert!(timeout(Duration::from_millis(200), provider.embed_batch(request(["a"]))).await.is_err());
    eventually(|| ask(&made, c"len(it.futures) == 1 and it.futures[0].cancelled()")).await;

    // One that was dropped before its turn is never submitted.
    let (made, provider) = stand_in(
        "    def submit(self, texts, **options):
        time.sleep(0.5)
        return super().submit(texts, **options)",
    );
    let (first, second) = tokio::join!(
        provider.embed_batch(request(["a"])),
        timeout(Duration::from_millis(100), provider.embed_batch(request(["b"]))),
    );
    first.unwrap();
    assert!(second.is_err());
    provider.embed_batch(request(["c"])).await.unwrap();
    assert_eq!(ask::<Vec<Vec<String>>>(&made, c"[texts for texts, _ in it.calls]"), [["a"], ["c"]]);
}

#[tokio::test]
async fn a_deadline_ends_the_call_and_reaches_the_service() {
    let (made, provider) = stand_in(NEVER_ANSWERS);
    let began = Instant::now();
    let error = provider.embed_with(request(["a"]), within(Duration::from_secs(1))).await.unwrap_err();
    assert!(matches!(&error, EmbeddingError::ServiceUnavailable(failure) if failure.message.contains("timeout")));
    assert!(began.elapsed() < Duration::from_secs(5));
    eventually(|| ask(&made, c"it.futures[0].cancelled() and 0 < it.calls[0][1]['timeout'] <= 1")).await;
    for limit in [Duration::ZERO, Duration::MAX] {
        let answers = service(STAND_IN);
        let outcome = answers.embed_with(request(["a"]), within(limit)).await;
        assert_eq!(outcome.is_ok(), limit == Duration::MAX, "{outcome:?}");
    }
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let (made, provider) = stand_in(
        "    def submit(self, texts, **options):
        time.sleep(0 if self.calls else 1)
        return super().submit(texts, **options)",
    );
    let calls: Vec<_> = (0..5000)
        .map(|index| {
            let provider = provider.clone();
            tokio::spawn(async move { provider.embed_batch(request([index.to_string()])).await })
        })
        .collect();
    let mut refused = 0;
    for call in calls {
        if let Err(error) = call.await.unwrap() {
            assert!(matches!(error, EmbeddingError::ServiceUnavailable { .. }), "{error:?}");
            assert!(error.retry_after().unwrap() > Duration::ZERO);
            refused += 1;
        }
    }
    assert_eq!(5000 - refused, ask::<usize>(&made, c"len(it.calls)"));
    assert!((5000 - 4096 - 1..=5000 - 4096).contains(&refused), "{refused}");
    provider.embed_batch(request(["again"])).await.unwrap();
}

#[tokio::test]
async fn calls_of_many_texts_take_no_places_of_short_ones() {
    let (made, provider) = stand_in(
        "    released = False
    def submit(self, texts, **options):
        while len(texts) > 64 and not self.released:
            time.sleep(0.01)
        return super().submit(texts, **options)",
    );
    let (refused, refusals) = std::sync::mpsc::channel();
    let mut calls = JoinSet::new();
    for _ in 0..4200 {
        let (provider, refused) = (provider.clone(), refused.clone());
        calls.spawn(async move {
            if provider.embed_batch(request([""; 65])).await.is_err() {
                refused.send(()).unwrap();
            }
        });
    }
    eventually(|| refusals.try_recv().is_ok()).await;
    timeout(Duration::from_secs(10), provider.embed_batch(request(["short"]))).await.unwrap().unwrap();
    assert_eq!(ask::<Vec<Vec<String>>>(&made, c"[texts for texts, _ in it.calls]"), [["short"]]);
    calls.abort_all();
    ask::<Option<bool>>(&made, c"setattr(it, 'released', True)");
}

#[tokio::test]
async fn health_checks_share_an_answer_and_those_that_nobody_waits_for_are_not_made() {
    let (made, provider) = stand_in(
        "    passes = threading.Semaphore(0)
    def health_check(self):
        self.calls.append('health')
        self.passes.acquire(timeout=60)
        return super().health_check()",
    );
    let mut checks = JoinSet::new();
    for _ in 0..100 {
        let provider = provider.clone();
        checks.spawn(async move { provider.health_check().await });
    }
    eventually(|| ask(&made, c"len(it.calls) == 1")).await;
    for _ in 0..1000 {
        abandon(provider.health_check()).await;
    }
    ask::<Option<bool>>(&made, c"it.passes.release(99)");
    while let Some(checked) = checks.join_next().await {
        checked.unwrap().unwrap();
    }
    provider.health_check().await.unwrap();
    // One more may be made for the first callers, who have their answer and have not taken it yet.
    let made_so_far: usize = ask(&made, c"len(it.calls)");
    assert!((2..=3).contains(&made_so_far), "{made_so_far}");
    for _ in 0..3 {
        provider.health_check().await.unwrap();
    }
    assert_eq!(ask::<usize>(&made, c"len(it.calls)"), made_so_far + 3, "an old answer was given");
}

#[tokio::test]
async fn health_tells_a_hanging_engine_and_a_hanging_python_apart() {
    let (_, provider) = stand_in(
        "    def health_check(self):
        return {'status': 'failed', 'reason': 'the forward pass has been running for 200 s'}",
    );
    let error = provider.health_check().await.unwrap_err();
    assert!(matches!(&error, EmbeddingError::ServiceUnavailable(failure) if failure.message.contains("200 s")));

    let (_, stuck) = stand_in("    def health_check(self):\n        time.sleep(8)");
    let began = Instant::now();
    let error = stuck.health_check().await.unwrap_err();
    assert!(
        matches!(&error, EmbeddingError::ServiceUnavailable(failure) if failure.message.contains("did not answer"))
    );
    assert!((4..7).contains(&began.elapsed().as_secs()));
    assert_eq!(stuck.model_info().await.unwrap().dimension, 4);
}

#[tokio::test]
async fn a_short_call_does_not_wait_for_a_long_one_to_be_tokenised() {
    let (_, provider) = stand_in(
        "    def submit(self, texts, **options):
        time.sleep(3 if len(texts) > 64 else 0)
        return super().submit(texts, **options)",
    );
    let bulk = tokio::spawn({
        let provider = provider.clone();
        async move { provider.embed_batch(request(vec!["a"; 1000])).await }
    });
    sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    provider.embed_batch(request(["short"])).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_eq!(bulk.await.unwrap().unwrap().embeddings.len(), 1000);
}

#[tokio::test]
async fn closing_fails_what_is_pending_and_refuses_what_comes() {
    let (made, provider) = stand_in(NEVER_ANSWERS);
    let pending = tokio::spawn({
        let provider = provider.clone();
        async move { provider.embed_batch(request(["a"])).await }
    });
    eventually(|| ask(&made, c"len(it.calls) == 1")).await;
    provider.close(false).await.unwrap();
    provider.close(false).await.unwrap();
    assert!(matches!(pending.await.unwrap(), Err(EmbeddingError::ServiceUnavailable { .. })));
    let error = provider.embed_batch(request(["b"])).await.unwrap_err();
    assert!(matches!(&error, EmbeddingError::ServiceUnavailable(failure) if failure.message.contains("closed")));
    assert_eq!(ask::<Vec<bool>>(&made, c"it.closed"), [false, false]);
}

#[tokio::test]
async fn closing_with_draining_finishes_what_was_asked() {
    let (made, provider) = stand_in(
        "    def submit(self, texts, **options):
        time.sleep(0.05)
        return super().submit(texts, **options)",
    );
    let calls: Vec<_> = (0..10)
        .map(|_| {
            let provider = provider.clone();
            tokio::spawn(async move { provider.embed_batch(request(["a"])).await })
        })
        .collect();
    eventually(|| ask(&made, c"len(it.calls) > 0")).await;
    provider.close(true).await.unwrap();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(ask::<Vec<bool>>(&made, c"it.closed"), [true]);
}

#[tokio::test]
async fn closing_ends_also_when_python_does_not() {
    let (made, provider) = stand_in(
        "    def resolve(self, future, texts): pass
    def close(self, drain=False): time.sleep(20)",
    );
    let pending = tokio::spawn({
        let provider = provider.clone();
        async move { provider.embed_batch(request(["a"])).await }
    });
    eventually(|| ask(&made, c"len(it.calls) == 1")).await;
    let began = Instant::now();
    assert!(matches!(provider.close(false).await, Err(EmbeddingError::ServiceUnavailable { .. })));
    assert!(matches!(pending.await.unwrap(), Err(EmbeddingError::ServiceUnavailable { .. })));
    assert!(began.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn a_provider_and_its_errors_have_short_debug_forms() {
    let (_, provider) = stand_in("    def submit(self, texts, **options): raise ValueError('line 1\\n' + 'x' * 9999)");
    let error = provider.embed_batch(request(["a"])).await.unwrap_err();
    let said = format!("{error:?}");
    assert!(said.starts_with("Internal: ValueError: line 1 xxx") && said.chars().count() < 600, "{said}");
    let source = error.source().unwrap().downcast_ref::<PythonError>().unwrap();
    assert_eq!(source.message.len(), 9999 + 7);
    let said = format!("{provider:?}");
    assert!(said.contains("minilm-l6-v2") && said.contains("open: true"), "{said}");
}

#[tokio::test]
async fn a_service_of_the_hosts_outlives_its_provider() {
    let (made, provider) = stand_in("    pass");
    drop(provider);
    sleep(Duration::from_millis(100)).await;
    let again = MlxEmbeddingProvider::from_service(Python::attach(|py| made.clone_ref(py))).unwrap();
    again.embed_batch(request(["a"])).await.unwrap();
    assert!(ask::<Vec<bool>>(&made, c"it.closed").is_empty());
}

//! The promises of an `EmbeddingProvider`.

use std::sync::Arc;
use std::time::Duration;

use akidb_embedding::{
    BatchEmbeddingRequest, BatchEmbeddingResponse, EmbeddingError, EmbeddingProvider, EmbeddingResult,
};
use async_trait::async_trait;

use crate::{close, length, texts};

/// The documented treatment of a text that is longer than the model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "which of them occur depends on the features")]
pub enum LongText {
    /// The model reads its first `max_tokens` tokens.
    Cut,
    /// The call fails, and the error has the text's index.
    Refused,
    /// There is no limit.
    Read,
}

/// A provider, with what lies beside the trait.
#[async_trait]
pub trait Subject: Send + Sync {
    fn provider(&self) -> Arc<dyn EmbeddingProvider>;

    fn long_text(&self) -> LongText;

    /// Embed a text with so much time.
    async fn embed_within(&self, _: BatchEmbeddingRequest, _: Duration) -> EmbeddingResult<BatchEmbeddingResponse> {
        unreachable!("its interface has no deadline")
    }

    /// Embed texts, of which the one of index 1 is not usable.
    async fn embed_a_bad_text(&self) -> EmbeddingResult<BatchEmbeddingResponse> {
        unreachable!("it takes every text")
    }

    async fn close(&self, _drain: bool) -> EmbeddingResult<()> {
        unreachable!("its interface has no close")
    }
}

async fn request(subject: &dyn Subject, texts: &[String]) -> BatchEmbeddingRequest {
    BatchEmbeddingRequest::new(subject.provider().model_info().await.unwrap().model, texts)
}

async fn embed(subject: &dyn Subject, texts: &[String]) -> EmbeddingResult<BatchEmbeddingResponse> {
    subject.provider().embed_batch(request(subject, texts).await).await
}

async fn vectors(subject: &dyn Subject, texts: &[String]) -> Vec<Vec<f32>> {
    embed(subject, texts).await.unwrap().embeddings
}

pub async fn its_model_has_a_name_a_dimension_and_a_limit(subject: &dyn Subject) {
    let info = subject.provider().model_info().await.unwrap();
    assert!(!info.model.is_empty());
    assert!(info.max_tokens > 0);
    let answer = embed(subject, &texts(1)).await.unwrap();
    assert_eq!((answer.model, answer.embeddings[0].len()), (info.model.clone(), info.dimension as usize));
    assert_eq!(subject.provider().model_info().await.unwrap(), info);
}

pub async fn each_text_has_a_vector_in_order(subject: &dyn Subject) {
    let mut texts = texts(70);
    let forwards = vectors(subject, &texts).await;
    texts.reverse();
    let mut backwards = vectors(subject, &texts).await;
    backwards.reverse();
    assert_eq!((forwards.len(), backwards.len()), (70, 70));
    assert!(forwards.iter().zip(&backwards).all(|(one, other)| close(one, other)));
}

pub async fn equal_texts_have_equal_vectors_and_others_do_not(subject: &dyn Subject) {
    let [a, b] = ["a harbour at night", "seven green bottles"].map(str::to_owned);
    let found = vectors(subject, &[a.clone(), b.clone(), a.clone()]).await;
    assert!(close(&found[0], &found[2]));
    assert!(!close(&found[0], &found[1]));
    assert!(close(&found[0], &vectors(subject, &[a]).await[0]));
}

pub async fn vectors_have_length_1(subject: &dyn Subject) {
    assert!(vectors(subject, &texts(9)).await.iter().all(|vector| (length(vector) - 1.0).abs() < 1e-5));
}

pub async fn vectors_keep_their_length_if_that_is_asked(subject: &dyn Subject) {
    let mut request = request(subject, &texts(9)).await;
    let unit = subject.provider().embed_batch(request.clone()).await.unwrap().embeddings;
    request.normalize = false;
    let raw = subject.provider().embed_batch(request).await.unwrap().embeddings;
    assert!(raw.iter().any(|vector| (length(vector) - 1.0).abs() > 1e-3));
    for (raw, unit) in raw.iter().zip(&unit) {
        let scaled: Vec<f32> = raw.iter().map(|value| value / length(raw)).collect();
        assert!(close(&scaled, unit));
    }
}

pub async fn no_text_gives_no_vector(subject: &dyn Subject) {
    let answer = embed(subject, &[]).await.unwrap();
    assert!(answer.embeddings.is_empty());
    assert_eq!(answer.usage.total_tokens, 0);
}

pub async fn an_empty_text_has_a_vector_or_is_named(subject: &dyn Subject) {
    match embed(subject, &["a".to_owned(), String::new()]).await {
        Ok(answer) => assert!((length(&answer.embeddings[1]) - 1.0).abs() < 1e-5),
        Err(error) => {
            assert!(matches!(error, EmbeddingError::InvalidInput(_)), "{error:?}");
            assert_eq!(error.index(), Some(1), "{error:?}");
        }
    }
}

pub async fn any_characters_are_text(subject: &dyn Subject) {
    let odd =
        ["a\0b", "\u{1f980}\u{200d}\u{fe0f}", "e\u{301}\u{301}\u{301}", "\u{202e}שלום", "\r\n\t \u{a0}x", "東京都"];
    let found = vectors(subject, &odd.map(str::to_owned)).await;
    assert!(found.iter().all(|vector| (length(vector) - 1.0).abs() < 1e-5));
}

pub async fn another_model_is_refused(subject: &dyn Subject) {
    let request = BatchEmbeddingRequest::new("another-model", ["a"]);
    let error = subject.provider().embed_batch(request).await.unwrap_err();
    assert!(matches!(error, EmbeddingError::ModelNotFound(_)), "{error:?}");
    let held = subject.provider().model_info().await.unwrap().model;
    assert!(error.to_string().contains("another-model") && error.to_string().contains(&held), "{error:?}");
}

pub async fn a_long_text_is_treated_as_documented(subject: &dyn Subject) {
    let limit = subject.provider().model_info().await.unwrap().max_tokens;
    let long = "word ".repeat(limit + 10);
    let outcome = embed(subject, &["a".to_owned(), long.clone()]).await;
    match subject.long_text() {
        LongText::Cut => {
            let answer = outcome.unwrap();
            let short = embed(subject, &["a".to_owned()]).await.unwrap().usage.total_tokens;
            assert_eq!(answer.usage.total_tokens, short + limit);
            // What is cut off has no influence.
            let other = embed(subject, &[format!("{long}and another end")]).await.unwrap();
            assert!(close(&answer.embeddings[1], &other.embeddings[0]));
        }
        LongText::Refused => {
            let error = outcome.unwrap_err();
            assert!(matches!(error, EmbeddingError::InvalidInput(_)), "{error:?}");
            assert_eq!(error.index(), Some(1), "{error:?}");
        }
        LongText::Read => assert_eq!(outcome.unwrap().embeddings.len(), 2),
    }
}

pub async fn tasks_at_once_get_their_own_vectors(subject: &dyn Subject) {
    let texts = texts(64);
    let expected = vectors(subject, &texts).await;
    let model = subject.provider().model_info().await.unwrap().model;
    let tasks: Vec<_> = texts
        .into_iter()
        .map(|text| {
            let (provider, request) = (subject.provider(), BatchEmbeddingRequest::new(model.as_str(), [text]));
            tokio::spawn(async move { provider.embed_batch(request).await.unwrap().embeddings.remove(0) })
        })
        .collect();
    for (task, expected) in tasks.into_iter().zip(expected) {
        assert!(close(&task.await.unwrap(), &expected));
    }
}

pub async fn a_dropped_call_leaves_the_next_alone(subject: &dyn Subject) {
    let provider = subject.provider();
    for count in [1, 300] {
        let call = provider.embed_batch(request(subject, &texts(count)).await);
        // Begun, and left at once.
        tokio::select! { biased; _ = call => {}, () = std::future::ready(()) => {} }
        assert_eq!(vectors(subject, &texts(2)).await.len(), 2);
    }
}

pub async fn tokens_are_counted(subject: &dyn Subject) {
    let one = embed(subject, &["two words".to_owned()]).await.unwrap().usage.total_tokens;
    let both = embed(subject, &["two words".to_owned(), "two words".to_owned()]).await.unwrap().usage.total_tokens;
    assert!(one >= 2);
    assert_eq!(both, 2 * one);
}

pub async fn it_is_healthy(subject: &dyn Subject) {
    subject.provider().health_check().await.unwrap();
}

pub async fn a_bad_text_fails_alone(subject: &dyn Subject) {
    let texts = texts(3);
    let (bad, good) = tokio::join!(subject.embed_a_bad_text(), embed(subject, &texts));
    let error = bad.unwrap_err();
    assert!(matches!(error, EmbeddingError::InvalidInput(_)), "{error:?}");
    assert_eq!(error.index(), Some(1), "{error:?}");
    assert_eq!(good.unwrap().embeddings.len(), 3);
}

pub async fn a_deadline_ends_a_call(subject: &dyn Subject) {
    let request = request(subject, &texts(3)).await;
    let error = subject.embed_within(request.clone(), Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, EmbeddingError::ServiceUnavailable(_)), "{error:?}");
    assert!(error.to_string().contains("timeout"), "{error:?}");
    for limit in [Duration::from_secs(50), Duration::MAX] {
        assert_eq!(subject.embed_within(request.clone(), limit).await.unwrap().embeddings.len(), 3);
    }
}

pub async fn after_closing_calls_are_refused(subject: &dyn Subject) {
    let info = subject.provider().model_info().await.unwrap();
    subject.close(false).await.unwrap();
    subject.close(true).await.unwrap();
    for texts in [texts(1), Vec::new()] {
        let error = embed(subject, &texts).await.unwrap_err();
        assert!(matches!(error, EmbeddingError::ServiceUnavailable(_)), "{error:?}");
        assert!(error.to_string().contains("closed"), "{error:?}");
    }
    let error = subject.provider().health_check().await.unwrap_err();
    assert!(matches!(error, EmbeddingError::ServiceUnavailable(_)), "{error:?}");
    assert_eq!(subject.provider().model_info().await.unwrap(), info);
}

pub async fn closing_may_finish_what_was_begun(subject: &dyn Subject) {
    let requests = [request(subject, &texts(200)).await, request(subject, &texts(1)).await];
    let (first, second) = (subject.provider(), subject.provider());
    let [one, other] = requests;
    let (one, other, closed) =
        tokio::join!(biased; first.embed_batch(one), second.embed_batch(other), subject.close(true));
    closed.unwrap();
    assert_eq!((one.unwrap().embeddings.len(), other.unwrap().embeddings.len()), (200, 1));
}

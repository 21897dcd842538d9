//! The promises of an `MlBridge`.

use std::sync::Arc;
use std::time::Duration;

use akidb_embedding::{MlBridge, MlBridgeError, MlBridgeResult};
use async_trait::async_trait;

use crate::{close, length, texts};

/// A bridge, with what lies beside the trait.
#[async_trait]
pub trait Subject: Send + Sync {
    fn bridge(&self) -> Arc<dyn MlBridge>;

    /// Return the same bridge with so much time for each call.
    async fn bridge_within(&self, _: Duration) -> Arc<dyn MlBridge> {
        unreachable!("its interface has no deadline")
    }

    /// Return a text that is not usable.
    #[cfg_attr(not(feature = "openai"), allow(dead_code))]
    fn bad_text(&self) -> String {
        unreachable!("it takes every text")
    }

    async fn close(&self) -> MlBridgeResult<()> {
        unreachable!("its interface has no close")
    }
}

pub async fn a_text_alone_has_the_vector_that_it_has_in_a_batch(subject: &dyn Subject) {
    let (bridge, texts) = (subject.bridge(), texts(5));
    let together = bridge.generate_embeddings_batch(&texts).await.unwrap();
    for (text, expected) in texts.iter().zip(&together) {
        assert!(close(&bridge.generate_embedding(text).await.unwrap(), expected));
    }
}

pub async fn each_text_has_a_vector_in_order(subject: &dyn Subject) {
    let mut texts = texts(70);
    let forwards = subject.bridge().generate_embeddings_batch(&texts).await.unwrap();
    texts.reverse();
    let mut backwards = subject.bridge().generate_embeddings_batch(&texts).await.unwrap();
    backwards.reverse();
    assert_eq!((forwards.len(), backwards.len()), (70, 70));
    assert!(forwards.iter().zip(&backwards).all(|(one, other)| close(one, other)));
    assert!(!close(&forwards[0], &forwards[1]));
}

pub async fn vectors_have_length_1(subject: &dyn Subject) {
    let found = subject.bridge().generate_embeddings_batch(&texts(5)).await.unwrap();
    assert!(found.iter().all(|vector| (length(vector) - 1.0).abs() < 1e-5));
}

pub async fn no_text_gives_no_vector(subject: &dyn Subject) {
    assert!(subject.bridge().generate_embeddings_batch(&[]).await.unwrap().is_empty());
}

pub async fn an_empty_text_has_a_vector_or_is_refused(subject: &dyn Subject) {
    match subject.bridge().generate_embedding("").await {
        Ok(vector) => assert!((length(&vector) - 1.0).abs() < 1e-5),
        Err(error) => assert!(matches!(error, MlBridgeError::FunctionCall(_)), "{error:?}"),
    }
}

pub async fn entities_are_where_they_say_or_unsupported(subject: &dyn Subject) {
    let text = "Größe: Barack Obama visited Berlin in 2013.";
    match subject.bridge().extract_entities(text).await {
        Ok(entities) => {
            assert!(!entities.is_empty());
            for entity in entities {
                assert_eq!(text[entity.start_byte..entity.end_byte], entity.text);
                let characters: String = text.chars().skip(entity.start).take(entity.end - entity.start).collect();
                assert_eq!(characters, entity.text);
            }
        }
        Err(error) => assert_is_unsupported(&error),
    }
}

pub async fn summaries_are_made_or_unsupported(subject: &dyn Subject) {
    let messages = ["The harbour is closed.", "It opens on Monday.", "Bring a coat."].map(str::to_owned);
    match subject.bridge().summarize(&messages).await {
        Ok(summary) => assert!(!summary.trim().is_empty()),
        Err(error) => assert_is_unsupported(&error),
    }
}

fn assert_is_unsupported(error: &MlBridgeError) {
    assert!(matches!(error, MlBridgeError::Unsupported(_)), "{error:?}");
    assert!(error.to_string().contains("PyMlBridge"), "{error} does not say what can");
}

pub async fn tasks_at_once_get_their_own_vectors(subject: &dyn Subject) {
    let texts = texts(64);
    let expected = subject.bridge().generate_embeddings_batch(&texts).await.unwrap();
    let tasks: Vec<_> = texts
        .into_iter()
        .map(|text| {
            let bridge = subject.bridge();
            tokio::spawn(async move { bridge.generate_embedding(&text).await.unwrap() })
        })
        .collect();
    for (task, expected) in tasks.into_iter().zip(expected) {
        assert!(close(&task.await.unwrap(), &expected));
    }
}

pub async fn a_dropped_call_leaves_the_next_alone(subject: &dyn Subject) {
    let (bridge, texts) = (subject.bridge(), texts(300));
    let call = bridge.generate_embeddings_batch(&texts);
    tokio::select! { biased; _ = call => {}, () = std::future::ready(()) => {} }
    assert_eq!(bridge.generate_embeddings_batch(&texts[..2]).await.unwrap().len(), 2);
}

/// At once, or as soon as what it needs is loaded; the suite's own limit ends the wait.
pub async fn it_is_healthy(subject: &dyn Subject) {
    while !subject.bridge().health_check().await.unwrap() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[cfg(feature = "openai")]
pub async fn a_bad_text_fails_alone(subject: &dyn Subject) {
    let (bridge, bad) = (subject.bridge(), subject.bad_text());
    let (before, failed, after) =
        tokio::join!(bridge.generate_embedding("a"), bridge.generate_embedding(&bad), bridge.generate_embedding("b"));
    assert!(matches!(failed, Err(MlBridgeError::FunctionCall(_))), "{failed:?}");
    assert!(!close(&before.unwrap(), &after.unwrap()));
}

pub async fn a_deadline_ends_a_call(subject: &dyn Subject) {
    let error = subject.bridge_within(Duration::ZERO).await.generate_embedding("a").await.unwrap_err();
    assert!(matches!(error, MlBridgeError::FunctionCall(_)), "{error:?}");
    assert!(error.to_string().contains("timeout"), "{error:?}");
    subject.bridge_within(Duration::from_secs(50)).await.generate_embedding("a").await.unwrap();
}

pub async fn after_closing_calls_are_refused(subject: &dyn Subject) {
    subject.close().await.unwrap();
    subject.close().await.unwrap();
    let error = subject.bridge().generate_embedding("a").await.unwrap_err();
    assert!(error.to_string().contains("closed"), "{error:?}");
    assert!(!subject.bridge().health_check().await.unwrap());
}

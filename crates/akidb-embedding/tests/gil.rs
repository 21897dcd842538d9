//! A thread that keeps the GIL stops Python, and nothing else. One test, since it stops all others of its process.
#![cfg(feature = "python")]

mod common;

use std::time::{Duration, Instant};

use akidb_embedding::{EmbedOptions, EmbeddingError, EmbeddingProvider};
use common::{STAND_IN, request, service};
use tokio::time::{Interval, interval, timeout};

/// Ticks for a while, and says how long the longest gap between two ticks was: how long this runtime was stopped.
async fn longest_gap(mut ticks: Interval, end: Instant) -> Duration {
    let mut longest = Duration::ZERO;
    let mut last = ticks.tick().await;
    while Instant::now() < end {
        let next = ticks.tick().await;
        longest = longest.max(next - last);
        last = next;
    }
    longest
}

#[tokio::test]
async fn no_task_waits_for_the_gil() {
    let provider = service(&format!(
        "{STAND_IN}
import ctypes

class Hog(StandIn):
    def submit(self, texts, **options):
        if texts == ['hog']:
            ctypes.PyDLL(None).sleep(8)  # as C code does that keeps the GIL
        return super().submit(texts, **options)

def make():
    return Hog()
"
    ));
    let began = Instant::now();
    let hog = tokio::spawn({
        let provider = provider.clone();
        async move { provider.embed_batch(request(["hog"])).await }
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let options = EmbedOptions::default().with_timeout(Duration::from_millis(300));
    let (gap, late, dropped, health) = tokio::join!(
        longest_gap(interval(Duration::from_millis(10)), began + Duration::from_secs(6)),
        provider.embed_with(request(["late"]), options),
        timeout(Duration::from_millis(300), provider.embed_batch(request(["dropped"]))),
        provider.health_check(),
    );
    assert!(began.elapsed() < Duration::from_secs(8), "the GIL was not kept");
    assert!(gap < Duration::from_millis(500), "the runtime was stopped for {gap:?}");
    assert!(matches!(late, Err(EmbeddingError::ServiceUnavailable { .. })), "{late:?}");
    assert!(dropped.is_err());
    assert!(matches!(&health, Err(EmbeddingError::ServiceUnavailable(failure)) if failure.message.contains("GIL")));
    assert_eq!(provider.model_info().await.unwrap().dimension, 4);
    hog.await.unwrap().unwrap();
    provider.embed_batch(request(["after"])).await.unwrap();
}

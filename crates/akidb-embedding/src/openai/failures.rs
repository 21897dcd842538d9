//! The failures of requests: which error each one is, and when it is worth another attempt.

use std::time::{Duration, SystemTime};

use reqwest::header::HeaderMap;

use crate::failures::{broken, refused, unavailable};
use crate::{EmbeddingError, Failure};

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// Where an API that is overloaded names no time.
const DEFAULT_RETRY: Duration = Duration::from_secs(1);
/// Words for the exhausted budget of an account, which no waiting restores.
const NO_BUDGET: [&str; 2] = ["insufficient_quota", "billing_hard_limit_reached"];

/// A request that failed.
pub(crate) struct Failed {
    /// What the caller gets if there is no other attempt.
    pub(crate) error: EmbeddingError,
    pub(crate) retryable: bool,
    /// Whether another text may be taken.
    pub(crate) texts_may_be_at_fault: bool,
    /// The time after which the API wants another attempt, where it says so.
    pub(crate) retry_after: Option<Duration>,
}

impl Failed {
    pub(crate) fn transient(message: String) -> Self {
        Self { retryable: true, ..unavailable(message).into() }
    }

    /// The time to wait after an attempt, counted from 0: the API's, or doubling ones, spread so that callers that
    /// failed together do not come back together.
    pub(crate) fn wait(&self, attempt: u32) -> Duration {
        let doubled = FIRST_WAIT.saturating_mul(1 << attempt.min(10)).min(LONGEST_WAIT);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.retry_after.unwrap_or_else(|| doubled.mul_f64(0.5 + f64::from(now.subsec_nanos() % 1000) / 2000.0))
    }
}

/// A failure that another attempt would repeat.
impl From<EmbeddingError> for Failed {
    fn from(error: EmbeddingError) -> Self {
        Self { error, retryable: false, texts_may_be_at_fault: false, retry_after: None }
    }
}

impl From<Failed> for EmbeddingError {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

/// Return the failure that a status of HTTP stands for; `message` and `code` are the API's own, without secrets.
pub(crate) fn of_status(
    status: u16,
    headers: &HeaderMap,
    message: &str,
    code: Option<&str>,
    address: &str,
    model: &str,
) -> Failed {
    let found = format!("({status}: {message})");
    let last = Failed::from;
    let retry_after = parse_retry_after(headers);
    match status {
        ..400 => last(refused(format!("{address} redirects {found}; give the address that it leads to as base_url"))),
        401 | 403 => last(refused(format!("{address} refuses the key {found}; set OPENAI_API_KEY or give another"))),
        404 => last(EmbeddingError::ModelNotFound(
            format!("{address} has no model {model:?} {found}; check the name, and base_url").into(),
        )),
        400 | 413 | 422 => {
            Failed { texts_may_be_at_fault: true, ..last(refused(format!("{address} refuses the request {found}"))) }
        }
        429 if code.is_some_and(|code| NO_BUDGET.contains(&code)) => {
            last(unavailable(format!("the account at {address} has no budget left {found}")))
        }
        429 | 529 => {
            let message = format!("{address} takes no more requests now {found}; retry later or send fewer at once");
            let failure = Failure { retry_after: retry_after.or(Some(DEFAULT_RETRY)), ..message.into() };
            Failed { retryable: true, retry_after, ..EmbeddingError::ServiceUnavailable(failure).into() }
        }
        408 | 409 | 425 | 500 | 502..=504 | 506.. => {
            Failed { retry_after, ..Failed::transient(format!("{address} failed {found}")) }
        }
        _ => last(broken(format!("{address} failed {found}; look at its own log"))),
    }
}

/// The time that `Retry-After` asks for, in seconds or as a date; `None` where it says nothing usable.
fn parse_retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let number = |name, unit: f64| Duration::try_from_secs_f64(text(name)?.trim().parse::<f64>().ok()? * unit).ok();
    number("retry-after-ms", 1e-3).or_else(|| number("retry-after", 1.0)).or_else(|| {
        let date = httpdate::parse_http_date(text("retry-after")?).ok()?;
        Some(date.duration_since(SystemTime::now()).unwrap_or_default())
    })
}

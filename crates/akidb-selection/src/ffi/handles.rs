//! The selectors that are open, by their handles.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, PoisonError};

use super::call::Failure;
use super::{AkidbSelector, AkidbStatus};
use crate::Selector;

#[expect(clippy::disallowed_types, reason = "no Python and no GIL here")]
type Selectors = std::sync::RwLock<HashMap<u64, Arc<Selector>>>;

static OPEN: LazyLock<Selectors> = LazyLock::new(Selectors::default);
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Return an open selector.
pub(super) fn find(selector: AkidbSelector) -> Result<Arc<Selector>, Failure> {
    let open = OPEN.read().unwrap_or_else(PoisonError::into_inner);
    open.get(&selector).cloned().ok_or_else(closed)
}

/// Return a handle of a selector.
pub(super) fn open(selector: Selector) -> AkidbSelector {
    let handle = NEXT.fetch_add(1, Ordering::Relaxed);
    OPEN.write().unwrap_or_else(PoisonError::into_inner).insert(handle, Arc::new(selector));
    handle
}

/// Take a handle back; calls that run have the selector still.
pub(super) fn close(selector: AkidbSelector) -> Result<(), Failure> {
    let removed = OPEN.write().unwrap_or_else(PoisonError::into_inner).remove(&selector);
    removed.map(drop).ok_or_else(closed)
}

fn closed() -> Failure {
    Failure(AkidbStatus::Closed, "the selector is closed".to_owned())
}

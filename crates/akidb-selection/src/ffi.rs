//! The C ABI: `include/akidb_selection.h`.
//!
//! A handle is a number that is never given out twice, so a closed one is an error and not a crash. All functions are
//! safe to call from any thread, also while another closes the handle. None lets a panic out.
#![allow(unsafe_code, reason = "a C ABI")]

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, PoisonError};
use std::{ptr, slice};

use crate::{Error, MAX_BYTES, Selector};

/// An open selector. 0 is none.
pub type AkidbSelector = u64;

/// The outcome of a call.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AkidbStatus {
    /// The call succeeded.
    Ok = 0,
    /// A pointer is null, or an index is out of range.
    InvalidArgument = 1,
    /// The handle is closed, or never was one.
    Closed = 2,
    /// The JSON is not a selector that can be used.
    InvalidSelector = 3,
    /// A query has another length than the selector takes, or is not finite.
    InvalidQuery = 4,
    /// The selector was saved before it was trained.
    NotTrained = 5,
    /// A score is too large for a double.
    NotFinite = 6,
    /// A defect of this library.
    Internal = 7,
}

/// Text in UTF-8 that the caller owns and frees with `akidb_text_free`. It may contain NUL, and does not end with one.
#[repr(C)]
#[derive(Debug)]
pub struct AkidbText {
    /// Null where there is no text.
    pub data: *mut u8,
    /// Number of bytes.
    pub length: usize,
}

/// The score of one label.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct AkidbScore {
    /// Place of the label; `akidb_selector_label` returns its text.
    pub label: usize,
    /// Its score.
    pub value: f64,
}

/// Scores that the caller owns and frees with `akidb_scores_free`.
#[repr(C)]
#[derive(Debug)]
pub struct AkidbScores {
    /// Null where there are none.
    pub data: *mut AkidbScore,
    /// Number of scores.
    pub length: usize,
}

/// A failure with its message.
struct Failure(AkidbStatus, String);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error {
            Error::Query { .. } => AkidbStatus::InvalidQuery,
            Error::NotTrained => AkidbStatus::NotTrained,
            Error::NotFinite { .. } => AkidbStatus::NotFinite,
            _ => AkidbStatus::InvalidSelector,
        };
        Self(status, error.to_string())
    }
}

#[expect(clippy::disallowed_types, reason = "no Python and no GIL here")]
type Open = std::sync::RwLock<HashMap<u64, Arc<Selector>>>;

static OPEN: LazyLock<Open> = LazyLock::new(Open::default);
static NEXT: AtomicU64 = AtomicU64::new(1);

fn find(selector: AkidbSelector) -> Result<Arc<Selector>, Failure> {
    let open = OPEN.read().unwrap_or_else(PoisonError::into_inner);
    open.get(&selector).cloned().ok_or_else(closed)
}

fn closed() -> Failure {
    Failure(AkidbStatus::Closed, "the selector is closed".to_owned())
}

/// Run a call; its message, if it fails, goes to `message` unless that is null.
fn run(message: *mut AkidbText, call: impl FnOnce() -> Result<(), Failure>) -> AkidbStatus {
    let done = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
    let (status, text) = match done {
        Ok(()) => (AkidbStatus::Ok, None),
        Err(Failure(status, text)) => (status, Some(text)),
    };
    if !message.is_null() {
        // SAFETY: the caller's pointer is valid for a write, as the header says.
        unsafe { message.write(text.map_or(NO_TEXT, owned)) };
    }
    status
}

fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Failure(AkidbStatus::Internal, format!("a defect of akidb-selection: {}", text.unwrap_or("a panic")))
}

const NO_TEXT: AkidbText = AkidbText { data: ptr::null_mut(), length: 0 };

fn owned(text: String) -> AkidbText {
    let bytes = text.into_bytes().into_boxed_slice();
    AkidbText { length: bytes.len(), data: Box::into_raw(bytes).cast() }
}

fn null(name: &str) -> Failure {
    Failure(AkidbStatus::InvalidArgument, format!("{name} is null"))
}

/// Return the memory that a caller gave; a null pointer is right only where the length is 0.
///
/// # Safety
///
/// The pointer is null, or valid for `length` values while `'a` lasts.
unsafe fn given<'a, T>(data: *const T, length: usize, name: &str) -> Result<&'a [T], Failure> {
    if length == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(null(name));
    }
    if length.checked_mul(size_of::<T>()).is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(Failure(AkidbStatus::InvalidArgument, format!("{name} cannot have {length} values")));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { slice::from_raw_parts(data, length) })
}

/// Return the place for a result.
///
/// # Safety
///
/// The pointer is null, or valid for a write while `'a` lasts.
unsafe fn place<'a, T>(pointer: *mut T, name: &str) -> Result<&'a mut T, Failure> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_mut() }.ok_or_else(|| null(name))
}

/// Read a selector from `length` bytes of JSON.
///
/// `max_bytes` limits the length; 0 stands for 512 MiB. On success `*selector` is a handle, which
/// `akidb_selector_close` closes. On failure it is 0, and `*message` has the reason, which `akidb_text_free` frees.
/// `message` may be null.
///
/// # Safety
///
/// `json` is valid for `length` bytes, `selector` for a write, and `message` for a write or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn akidb_selector_from_json(
    json: *const u8,
    length: usize,
    max_bytes: u64,
    selector: *mut AkidbSelector,
    message: *mut AkidbText,
) -> AkidbStatus {
    run(message, || {
        // SAFETY: the caller's promise.
        let (json, selector) = unsafe { (given(json, length, "json")?, place(selector, "selector")?) };
        *selector = 0;
        let found = Selector::from_json_within(json, if max_bytes == 0 { MAX_BYTES } else { max_bytes })?;
        let handle = NEXT.fetch_add(1, Ordering::Relaxed);
        OPEN.write().unwrap_or_else(PoisonError::into_inner).insert(handle, Arc::new(found));
        *selector = handle;
        Ok(())
    })
}

/// Close a selector; calls that run finish first. Closing it again is `Closed`.
///
/// # Safety
///
/// `message` is valid for a write or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn akidb_selector_close(selector: AkidbSelector, message: *mut AkidbText) -> AkidbStatus {
    run(message, || {
        let removed = OPEN.write().unwrap_or_else(PoisonError::into_inner).remove(&selector);
        removed.map(drop).ok_or_else(closed)
    })
}

/// Write the place of the label of a query of `length` values to `*label`.
///
/// # Safety
///
/// `query` is valid for `length` values, `label` for a write, and `message` for a write or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn akidb_selector_select(
    selector: AkidbSelector,
    query: *const f64,
    length: usize,
    label: *mut usize,
    message: *mut AkidbText,
) -> AkidbStatus {
    run(message, || {
        // SAFETY: the caller's promise.
        let (query, label) = unsafe { (given(query, length, "query")?, place(label, "label")?) };
        *label = find(selector)?.select_index(query)?;
        Ok(())
    })
}

/// Write the places of the labels of `count` queries to `labels`. The queries stand one after the other, each with
/// `length` values. On failure nothing is written to `labels`.
///
/// # Safety
///
/// `queries` is valid for `count * length` values, `labels` for writing `count`, and `message` for a write or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn akidb_selector_select_batch(
    selector: AkidbSelector,
    queries: *const f64,
    count: usize,
    length: usize,
    labels: *mut usize,
    message: *mut AkidbText,
) -> AkidbStatus {
    run(message, || {
        let selector = find(selector)?;
        if count == 0 {
            return selector.select_batch_indices(&[]).map(|_| ()).map_err(Failure::from);
        }
        let values = count
            .checked_mul(length)
            .ok_or_else(|| Failure(AkidbStatus::InvalidArgument, "count * length is too large".to_owned()))?;
        if labels.is_null() {
            return Err(null("labels"));
        }
        // SAFETY: the caller's promise.
        let queries = unsafe { given(queries, values, "queries")? };
        let queries: Vec<&[f64]> =
            if length == 0 { vec![&[]; count.min(1)] } else { queries.chunks_exact(length).collect() };
        let found = selector.select_batch_indices(&queries)?;
        // SAFETY: the caller's promise; there is one label for each query.
        unsafe { ptr::copy_nonoverlapping(found.as_ptr(), labels, found.len()) };
        Ok(())
    })
}

/// Write the scores of a query of `length` values to `*scores`.
///
/// # Safety
///
/// `query` is valid for `length` values, `scores` for a write, and `message` for a write or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn akidb_selector_scores(
    selector: AkidbSelector,
    query: *const f64,
    length: usize,
    scores: *mut AkidbScores,
    message: *mut AkidbText,
) -> AkidbStatus {
    run(message, || {
        // SAFETY: the caller's promise.
        let (query, scores) = unsafe { (given(query, length, "query")?, place(scores, "scores")?) };
        *scores = AkidbScores { data: ptr::null_mut(), length: 0 };
        let found = find(selector)?.score_indices(query)?;
        let found: Box<[AkidbScore]> = found.into_iter().map(|(label, value)| AkidbScore { label, value }).collect();
        *scores = AkidbScores { length: found.len(), data: Box::into_raw(found).cast() };
        Ok(())
    })
}

/// Write the number of labels to `*count`.
///
/// # Safety
///
/// `count` is valid for a write, and `message` for a write or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn akidb_selector_label_count(
    selector: AkidbSelector,
    count: *mut usize,
    message: *mut AkidbText,
) -> AkidbStatus {
    run(message, || {
        // SAFETY: the caller's promise.
        *unsafe { place(count, "count")? } = find(selector)?.labels().len();
        Ok(())
    })
}

/// Write the text of the label at a place to `*label`.
///
/// # Safety
///
/// `label` is valid for a write, and `message` for a write or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn akidb_selector_label(
    selector: AkidbSelector,
    index: usize,
    label: *mut AkidbText,
    message: *mut AkidbText,
) -> AkidbStatus {
    run(message, || {
        // SAFETY: the caller's promise.
        let label = unsafe { place(label, "label")? };
        *label = NO_TEXT;
        let selector = find(selector)?;
        let found = selector.labels().get(index).ok_or_else(|| {
            let fault = format!("index is {index}, and there are {} labels", selector.labels().len());
            Failure(AkidbStatus::InvalidArgument, fault)
        })?;
        *label = owned(found.clone());
        Ok(())
    })
}

/// Write "knn", "kmeans", "svm" or "mlp" to `*algorithm`.
///
/// # Safety
///
/// `algorithm` is valid for a write, and `message` for a write or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn akidb_selector_algorithm(
    selector: AkidbSelector,
    algorithm: *mut AkidbText,
    message: *mut AkidbText,
) -> AkidbStatus {
    run(message, || {
        // SAFETY: the caller's promise.
        let algorithm = unsafe { place(algorithm, "algorithm")? };
        *algorithm = NO_TEXT;
        *algorithm = owned(find(selector)?.algorithm().to_owned());
        Ok(())
    })
}

/// Write to `*trained` whether the selector can choose.
///
/// # Safety
///
/// `trained` is valid for a write, and `message` for a write or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn akidb_selector_is_trained(
    selector: AkidbSelector,
    trained: *mut bool,
    message: *mut AkidbText,
) -> AkidbStatus {
    run(message, || {
        // SAFETY: the caller's promise.
        *unsafe { place(trained, "trained")? } = find(selector)?.is_trained();
        Ok(())
    })
}

/// Write the number of values of a query to `*dimension`; 0 where the selector takes any.
///
/// # Safety
///
/// `dimension` is valid for a write, and `message` for a write or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn akidb_selector_dimension(
    selector: AkidbSelector,
    dimension: *mut usize,
    message: *mut AkidbText,
) -> AkidbStatus {
    run(message, || {
        // SAFETY: the caller's promise.
        *unsafe { place(dimension, "dimension")? } = find(selector)?.dimension().unwrap_or(0);
        Ok(())
    })
}

/// Write the selector's JSON to `*json`, with all fields that were read.
///
/// # Safety
///
/// `json` is valid for a write, and `message` for a write or null.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn akidb_selector_to_json(
    selector: AkidbSelector,
    json: *mut AkidbText,
    message: *mut AkidbText,
) -> AkidbStatus {
    run(message, || {
        // SAFETY: the caller's promise.
        let json = unsafe { place(json, "json")? };
        *json = NO_TEXT;
        *json = owned(find(selector)?.to_json());
        Ok(())
    })
}

/// Free a text, which becomes empty. Null, and a text that is empty already, are left alone.
///
/// # Safety
///
/// `text` is null, or holds a text of this library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn akidb_text_free(text: *mut AkidbText) {
    // SAFETY: the caller's promise.
    let Some(text) = (unsafe { text.as_mut() }) else { return };
    let AkidbText { data, length } = std::mem::replace(text, NO_TEXT);
    if !data.is_null() {
        // SAFETY: `owned` made it of a box of this length.
        drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(data, length)) });
    }
}

/// Free scores, which become empty. Null, and scores that are empty already, are left alone.
///
/// # Safety
///
/// `scores` is null, or holds scores of this library.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn akidb_scores_free(scores: *mut AkidbScores) {
    // SAFETY: the caller's promise.
    let Some(scores) = (unsafe { scores.as_mut() }) else { return };
    let AkidbScores { data, length } = *scores;
    *scores = AkidbScores { data: ptr::null_mut(), length: 0 };
    if !data.is_null() {
        // SAFETY: `akidb_selector_scores` made it of a box of this length.
        drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(data, length)) });
    }
}

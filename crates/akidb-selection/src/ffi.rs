//! The C ABI: `include/akidb_selection.h`.
//!
//! A handle is a number that is never given out twice, so a closed one is an error and not a crash. All functions are
//! safe to call from any thread, also while another closes the handle. None lets a panic out.
//!
//! Where a result is a text or scores, these are written first as empty ones, so that freeing them is right after a
//! failure too. What the memory of a result held before is never read.
#![allow(unsafe_code, reason = "a C ABI")]

mod call;
mod handles;

use std::ptr;

use crate::{MAX_BYTES, Selector};
use call::{Failure, Place, free, given, null, owned, run};
use handles::{close, find, open};

const NO_TEXT: AkidbText = AkidbText { data: ptr::null_mut(), length: 0 };
const NO_SCORES: AkidbScores = AkidbScores { data: ptr::null_mut(), length: 0 };

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
    /// Null where there is no text, and where it is empty.
    pub data: *mut u8,
    /// Number of bytes.
    pub length: usize,
}

impl AkidbText {
    fn of(text: String) -> Self {
        let (data, length) = owned(text.into_bytes());
        Self { data, length }
    }
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
        let selector = unsafe { Place::new(selector, "selector") }?;
        selector.write(0);
        // SAFETY: the caller's promise.
        let json = unsafe { given(json, length, "json") }?;
        let found = Selector::from_json_within(json, if max_bytes == 0 { MAX_BYTES } else { max_bytes })?;
        selector.write(open(found));
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
    run(message, || close(selector))
}

/// Write the place of the label of a query of `length` values to `*label`, which a failure leaves as it is.
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
        let (query, label) = unsafe { (given(query, length, "query")?, Place::new(label, "label")?) };
        label.write(find(selector)?.select_index(query)?);
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
        let scores = unsafe { Place::new(scores, "scores") }?;
        scores.write(NO_SCORES);
        // SAFETY: the caller's promise.
        let query = unsafe { given(query, length, "query") }?;
        let found = find(selector)?.score_indices(query)?;
        let (data, length) = owned(found.into_iter().map(|(label, value)| AkidbScore { label, value }).collect());
        scores.write(AkidbScores { data, length });
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
        let count = unsafe { Place::new(count, "count") }?;
        count.write(find(selector)?.labels().len());
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
        let label = unsafe { Place::new(label, "label") }?;
        label.write(NO_TEXT);
        let selector = find(selector)?;
        let found = selector.labels().get(index).ok_or_else(|| {
            let fault = format!("index is {index}, and there are {} labels", selector.labels().len());
            Failure(AkidbStatus::InvalidArgument, fault)
        })?;
        label.write(AkidbText::of(found.clone()));
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
        let algorithm = unsafe { Place::new(algorithm, "algorithm") }?;
        algorithm.write(NO_TEXT);
        algorithm.write(AkidbText::of(find(selector)?.algorithm().to_owned()));
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
        let trained = unsafe { Place::new(trained, "trained") }?;
        trained.write(find(selector)?.is_trained());
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
        let dimension = unsafe { Place::new(dimension, "dimension") }?;
        dimension.write(find(selector)?.dimension().unwrap_or(0));
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
        let json = unsafe { Place::new(json, "json") }?;
        json.write(NO_TEXT);
        json.write(AkidbText::of(find(selector)?.to_json()));
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
    // SAFETY: `owned` made it.
    unsafe { free(data, length) };
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
    let AkidbScores { data, length } = std::mem::replace(scores, NO_SCORES);
    // SAFETY: `owned` made it.
    unsafe { free(data, length) };
}

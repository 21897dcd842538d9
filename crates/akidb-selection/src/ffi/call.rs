//! One call of the C ABI: what goes in and out, and the outcome.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::slice;

use super::{AkidbStatus, AkidbText, NO_TEXT};
use crate::Error;

/// A failure with its message.
pub(super) struct Failure(pub(super) AkidbStatus, pub(super) String);

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

/// Run a call; its message, if it fails, goes to `message` unless that is null.
pub(super) fn run(message: *mut AkidbText, call: impl FnOnce() -> Result<(), Failure>) -> AkidbStatus {
    let done = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(panicked(panic.as_ref())));
    let (status, text) = match done {
        Ok(()) => (AkidbStatus::Ok, None),
        Err(Failure(status, text)) => (status, Some(text)),
    };
    if !message.is_null() {
        // SAFETY: the caller's pointer is valid for a write, as the header says.
        unsafe { message.write(text.map_or(NO_TEXT, AkidbText::of)) };
    }
    status
}

fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Failure(AkidbStatus::Internal, format!("a defect of akidb-selection: {}", text.unwrap_or("a panic")))
}

/// Return values as memory that the caller owns and [`free`] frees: null where there are none.
pub(super) fn owned<T>(values: Vec<T>) -> (*mut T, usize) {
    if values.is_empty() {
        return (ptr::null_mut(), 0);
    }
    let (size, values) = (values.len(), values.into_boxed_slice());
    (Box::into_raw(values).cast(), size)
}

/// Free what [`owned`] made, or null.
///
/// # Safety
///
/// It is not used after that.
pub(super) unsafe fn free<T>(data: *mut T, length: usize) {
    if !data.is_null() {
        // SAFETY: it is a box of this length.
        drop(unsafe { Box::from_raw(ptr::slice_from_raw_parts_mut(data, length)) });
    }
}

pub(super) fn null(name: &str) -> Failure {
    Failure(AkidbStatus::InvalidArgument, format!("{name} is null"))
}

/// Return the memory that a caller gave; a null pointer is right only where the length is 0.
///
/// # Safety
///
/// The pointer is null, or valid for `length` values while `'a` lasts.
pub(super) unsafe fn given<'a, T>(data: *const T, length: usize, name: &str) -> Result<&'a [T], Failure> {
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

/// The memory of a result, whose old content is never read: it may be none that Rust has a value for.
pub(super) struct Place<T>(NonNull<T>);

impl<T> Place<T> {
    /// Return the place that a caller gave.
    ///
    /// # Safety
    ///
    /// The pointer is null, or valid for writes while the place lasts.
    pub(super) unsafe fn new(pointer: *mut T, name: &str) -> Result<Self, Failure> {
        NonNull::new(pointer).map(Self).ok_or_else(|| null(name))
    }

    pub(super) fn write(&self, value: T) {
        // SAFETY: the promise of `new`.
        unsafe { self.0.write(value) };
    }
}

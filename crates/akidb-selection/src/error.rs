//! The error of reading a selector and of asking it.

use thiserror::Error;

/// The error of a selector. Its message names the cause, the value that was found and, where there is one, the field.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("{path} cannot be read: {reason}")]
    Unreadable {
        /// The path that was given.
        path: String,
        /// The operating system's reason.
        reason: String,
    },
    /// The JSON is longer than allowed.
    #[error("the selector has {size} bytes, and at most {limit} are read: raise max_bytes")]
    TooLarge {
        /// Length in bytes.
        size: u64,
        /// Largest length that is read.
        limit: u64,
    },
    /// The JSON has more parts than allowed.
    #[error("the selector has more than {limit} lists, objects, strings and other values: raise max_bytes")]
    TooManyParts {
        /// Number of parts that are read.
        limit: u64,
    },
    /// The text is not JSON.
    #[error("the selector is not valid JSON: {fault} at byte {offset}")]
    Syntax {
        /// The rule that is broken.
        fault: &'static str,
        /// The place of the fault, in bytes from the beginning.
        offset: usize,
    },
    /// Objects and lists are nested more deeply than allowed.
    #[error("the selector is nested more than {limit} levels deep")]
    TooDeep {
        /// Number of levels that are read.
        limit: usize,
    },
    /// A field is missing or wrong.
    #[error("{field} {fault}")]
    Field {
        /// The field's place, as in `layers[0].weight[3]`.
        field: String,
        /// The fault, as the rest of a sentence.
        fault: String,
    },
    /// The selector was saved before it was trained, so it cannot choose.
    #[error("the selector is not trained: its file says trained: false")]
    NotTrained,
    /// A query is not usable.
    #[error("{} {fault}", vector_name(*.index))]
    Query {
        /// The query's position in its batch.
        index: Option<usize>,
        /// The fault, as the rest of a sentence.
        fault: String,
    },
    /// A score is too large for a float64.
    #[error("the score of {label} is not finite: the selector's values or the vector's are too large")]
    NotFinite {
        /// The label of the score.
        label: String,
        /// The query's position in its batch.
        index: Option<usize>,
    },
}

impl Error {
    pub(crate) fn field(field: impl Into<String>, fault: impl Into<String>) -> Self {
        Self::Field { field: field.into(), fault: fault.into() }
    }

    /// Return the error with the place of the value that its field is in.
    pub(crate) fn within(self, place: &str) -> Self {
        match self {
            Self::Field { field, fault } if field.is_empty() => Self::field(place, fault),
            Self::Field { field, fault } if field.starts_with('[') => Self::field(format!("{place}{field}"), fault),
            Self::Field { field, fault } => Self::field(format!("{place}.{field}"), fault),
            other => other,
        }
    }
}

fn vector_name(index: Option<usize>) -> String {
    index.map_or_else(|| "the vector".to_owned(), |index| format!("vector {index}"))
}

/// Return a text in quotes, cut to a sane length.
pub(crate) fn shown(text: &str) -> String {
    const LONGEST: usize = 60;
    if text.chars().count() <= LONGEST {
        return format!("{text:?}");
    }
    format!("{:?}…", text.chars().take(LONGEST).collect::<String>())
}

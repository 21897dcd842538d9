//! A trained selector: a vector in, a label out.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::Error;
use crate::fields::{Fields, count};
use crate::json::{self, Object};
use crate::kind::{Kind, NotFinite};
use crate::kmeans::NearestCentroid;
use crate::knn::NearestNeighbours;
use crate::labels::Labels;
use crate::mlp::Perceptron;
use crate::svm::OneAgainstAll;

/// Length of the JSON that is read unless the caller says otherwise, 512 MiB: a KNN of 10 000 examples of 1 038 values
/// has 215 MB.
pub const MAX_BYTES: u64 = 512 << 20;

/// The version of the format. A file without one has this one.
const FORMAT_VERSION: i64 = 1;
const ALGORITHMS: [&str; 4] = ["knn", "kmeans", "svm", "mlp"];
const CATEGORIES: usize = 14;

/// Chooses a label for a vector. It is safe to share between threads.
///
/// ```
/// use akidb_selection::Selector;
///
/// let text = r#"{"algorithm": "kmeans", "trained": true, "num_clusters": 2,
///     "centroids": [[0.0, 1.0], [1.0, 0.0]], "cluster_models": ["small", "large"]}"#;
/// let selector = Selector::from_json(text)?;
/// assert_eq!(selector.select(&[0.9, 0.1])?, "large");
/// # Ok::<(), akidb_selection::Error>(())
/// ```
pub struct Selector {
    algorithm: &'static str,
    is_trained: bool,
    labels: Vec<String>,
    kind: Box<dyn Kind>,
    document: Object,
}

impl Selector {
    /// Read a selector's JSON of at most [`MAX_BYTES`].
    ///
    /// # Errors
    ///
    /// It is not JSON, or not a selector that can be used; the error names the field.
    pub fn from_json(text: impl AsRef<[u8]>) -> Result<Self, Error> {
        Self::from_json_within(text, MAX_BYTES)
    }

    /// Read a selector's JSON of at most `max_bytes`. Reading takes at most 16 times as much memory.
    ///
    /// # Errors
    ///
    /// As [`from_json`](Self::from_json).
    pub fn from_json_within(text: impl AsRef<[u8]>, max_bytes: u64) -> Result<Self, Error> {
        let text = text.as_ref();
        check_size(text.len() as u64, max_bytes)?;
        let text = str::from_utf8(text)
            .map_err(|error| Error::Syntax { fault: "a byte that is not UTF-8", offset: error.valid_up_to() })?;
        Self::new(json::read(text, max_bytes)?)
    }

    /// Read a selector's file of at most [`MAX_BYTES`].
    ///
    /// # Errors
    ///
    /// As [`from_json`](Self::from_json), or the file cannot be read.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::load_within(path, MAX_BYTES)
    }

    /// Read a selector's file of at most `max_bytes`.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_within(path: impl AsRef<Path>, max_bytes: u64) -> Result<Self, Error> {
        let path = path.as_ref();
        let unreadable =
            |error: std::io::Error| Error::Unreadable { path: path.display().to_string(), reason: error.to_string() };
        let file = File::open(path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        check_size(size, max_bytes)?;
        let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
        file.take(max_bytes.saturating_add(1)).read_to_end(&mut content).map_err(unreadable)?;
        Self::from_json_within(content, max_bytes)
    }

    fn new(document: Object) -> Result<Self, Error> {
        let fields = Fields::new(&document);
        let algorithm = fields.choice("algorithm", &ALGORITHMS)?;
        let is_trained = fields.boolean("trained")?;
        check_version(&fields)?;
        let mut labels = Labels::default();
        let kind: Box<dyn Kind> = match algorithm {
            "knn" => Box::new(NearestNeighbours::read(&fields, is_trained, &mut labels)?),
            "kmeans" => Box::new(NearestCentroid::read(&fields, is_trained, &mut labels)?),
            "svm" => Box::new(OneAgainstAll::read(&fields, is_trained, &mut labels)?),
            _ => Box::new(Perceptron::read(&fields, is_trained, &mut labels)?),
        };
        check_embedding_model(&fields, kind.width())?;
        Ok(Self { algorithm, is_trained, labels: labels.into_names(), kind, document })
    }

    /// Return the selector as JSON, with all fields that were read, also unknown ones, in their order.
    pub fn to_json(&self) -> String {
        json::write(&self.document)
    }

    /// Return `"knn"`, `"kmeans"`, `"svm"` or `"mlp"`.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm
    }

    /// Return whether the selector can choose.
    pub fn is_trained(&self) -> bool {
        self.is_trained
    }

    /// Return how many values a vector has; `None` where the file does not tell, as an SVM without classifiers.
    pub fn dimension(&self) -> Option<usize> {
        self.kind.width()
    }

    /// Return the labels that may be chosen, each once.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Return the label of a vector.
    ///
    /// # Errors
    ///
    /// The vector has another length or is not finite, the selector is not trained, or a score is not finite.
    pub fn select(&self, vector: &[f64]) -> Result<&str, Error> {
        self.select_index(vector).map(|label| self.labels[label].as_str())
    }

    /// Return the label of each of several vectors, faster than one by one.
    ///
    /// # Errors
    ///
    /// As [`select`](Self::select); the error has the vector's position.
    pub fn select_batch<V: AsRef<[f64]>>(&self, vectors: &[V]) -> Result<Vec<&str>, Error> {
        let vectors: Vec<&[f64]> = vectors.iter().map(AsRef::as_ref).collect();
        let found = self.select_batch_indices(&vectors)?;
        Ok(found.into_iter().map(|label| self.labels[label].as_str()).collect())
    }

    /// Return the scores of a vector.
    ///
    /// - KNN: the sum of votes of each label that got any, by label.
    /// - k-means: minus the squared distance of each label's nearest centroid.
    /// - SVM: each classifier's decision value, those of linear ones first; a label may occur twice.
    /// - MLP: the outputs.
    ///
    /// # Errors
    ///
    /// As [`select`](Self::select).
    pub fn scores(&self, vector: &[f64]) -> Result<Vec<(&str, f64)>, Error> {
        let found = self.score_indices(vector)?;
        Ok(found.into_iter().map(|(label, score)| (self.labels[label].as_str(), score)).collect())
    }

    /// Return the place in [`labels`](Self::labels) of a vector's label.
    pub(crate) fn select_index(&self, vector: &[f64]) -> Result<usize, Error> {
        self.check(vector, None)?;
        self.kind.choose(vector).map_err(|error| self.not_finite(&error, false))
    }

    pub(crate) fn select_batch_indices(&self, vectors: &[&[f64]]) -> Result<Vec<usize>, Error> {
        self.check_trained()?;
        for (place, vector) in vectors.iter().enumerate() {
            self.check(vector, Some(place))?;
        }
        self.kind.choose_all(vectors).map_err(|error| self.not_finite(&error, true))
    }

    pub(crate) fn score_indices(&self, vector: &[f64]) -> Result<Vec<(usize, f64)>, Error> {
        self.check(vector, None)?;
        self.kind.scores(vector).map_err(|error| self.not_finite(&error, false))
    }

    fn check_trained(&self) -> Result<(), Error> {
        if self.is_trained { Ok(()) } else { Err(Error::NotTrained) }
    }

    fn check(&self, vector: &[f64], index: Option<usize>) -> Result<(), Error> {
        self.check_trained()?;
        let refused = |fault| Err(Error::Query { index, fault });
        if let Some(dimension) = self.dimension().filter(|dimension| *dimension != vector.len()) {
            return refused(format!("has {}, and the selector takes {dimension}", count(vector.len())));
        }
        if vector.is_empty() {
            return refused("is empty".to_owned());
        }
        if let Some(place) = vector.iter().position(|value| !value.is_finite()) {
            return refused(format!("is not finite: its value {place} is {}", vector[place]));
        }
        Ok(())
    }

    fn not_finite(&self, error: &NotFinite, in_batch: bool) -> Error {
        Error::NotFinite { label: self.labels[error.label].clone(), index: in_batch.then_some(error.query) }
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Selector")
            .field("algorithm", &self.algorithm)
            .field("is_trained", &self.is_trained)
            .field("dimension", &self.dimension())
            .field("labels", &self.labels.len())
            .finish_non_exhaustive()
    }
}

fn check_size(size: u64, limit: u64) -> Result<(), Error> {
    if size > limit { Err(Error::TooLarge { size, limit }) } else { Ok(()) }
}

fn check_version(fields: &Fields<'_>) -> Result<(), Error> {
    if !fields.has("format_version") {
        return Ok(());
    }
    let found = fields.integer("format_version", 0)?;
    if found == FORMAT_VERSION {
        return Ok(());
    }
    let fault = format!("is {found}, and {FORMAT_VERSION} is read: files of another version follow other rules");
    Err(fields.error("format_version", fault))
}

fn check_embedding_model(fields: &Fields<'_>, width: Option<usize>) -> Result<(), Error> {
    let mut categories = 0;
    if fields.has("features") {
        let features = fields.object("features")?;
        if features.has("category_one_hot") && features.boolean("category_one_hot")? {
            categories = CATEGORIES;
        }
    }
    if !fields.has("embedding_model") {
        return Ok(());
    }
    let model = fields.object("embedding_model")?;
    model.text("name")?;
    for key in ["prompt", "revision"] {
        if model.has(key) {
            model.text(key)?;
        }
    }
    let dimension = model.size("dimension", 1)?;
    match width {
        Some(width) if dimension.saturating_add(categories) != width => {
            let added = if categories == 0 { String::new() } else { format!(" and {categories} of the category") };
            let fault = format!("is {dimension}{added}, and the selector takes {}", count(width));
            Err(model.error("dimension", fault))
        }
        _ => Ok(()),
    }
}

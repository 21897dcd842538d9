//! The labels of a selector, each once.

use std::collections::HashMap;

/// Labels in the order in which they were added.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    names: Vec<String>,
    places: HashMap<String, usize>,
}

impl Labels {
    /// Return the label's place, where it is added if it is new.
    pub(crate) fn add(&mut self, name: &str) -> usize {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        self.places.insert(name.to_owned(), self.names.len());
        self.names.push(name.to_owned());
        self.names.len() - 1
    }

    /// Return the places of labels, where they are added if they are new.
    pub(crate) fn add_all(&mut self, names: &[&str]) -> Vec<usize> {
        names.iter().map(|name| self.add(name)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn into_names(self) -> Vec<String> {
        self.names
    }
}

//! Texts to token ids, with the tokenizer that an exported file holds.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde::de::DeserializeOwned;
use tokenizers::Tokenizer;

use crate::failures::{bad_text, broken, excerpt, refused};
use crate::{EmbedOptions, EmbeddingResult, Overflow};

/// Consecutive windows of a chunked text share an eighth of their tokens.
const OVERLAP: usize = 8;
/// The names that are tried, in this order, for the two roles of a text in retrieval.
const ROLES: [(&str, &[&str]); 2] = [("query", &["query"]), ("document", &["document", "passage", "corpus"])];

/// Token ids with the special tokens around them.
pub(crate) type Ids = Vec<u32>;

/// A text as the model reads it.
pub(crate) struct Tokenized {
    /// One sequence, or several for a chunked text.
    pub(crate) windows: Vec<Ids>,
    /// The tokens that the model reads of the text; those that several windows share count once.
    pub(crate) token_count: usize,
    pub(crate) truncated: bool,
}

/// The description of a model in its file's metadata, but for the tokenizer.
pub(crate) struct Description {
    pub(crate) dimension: usize,
    /// The number of values that a vector has unless a call says otherwise.
    pub(crate) default_dimension: usize,
    /// Whether it was trained so that a vector's first values are a vector themselves.
    pub(crate) matryoshka: bool,
    pub(crate) max_tokens: usize,
    /// Whether the model's vectors have length 1 already.
    pub(crate) normalized: bool,
}

/// A model's tokenizer, which neither pads nor cuts by itself.
pub(crate) struct TextTokenizer {
    tokenizer: Tokenizer,
    before: Ids,
    after: Ids,
    keeps_end: bool,
    vocabulary: u32,
    max_tokens: usize,
    prompts: BTreeMap<String, String>,
}

/// Read a file's metadata.
///
/// # Errors
///
/// `Internal`: an entry is missing or malformed.
pub(crate) fn read(file: &Path, metadata: &HashMap<String, String>) -> EmbeddingResult<(Description, TextTokenizer)> {
    let entries = Entries { file, metadata };
    let pooling = entries.text("pooling")?;
    if pooling == "none" {
        return Err(broken(format!("{} was exported with --no-pooling: export it without", file.display())));
    }
    let description = Description {
        dimension: entries.parsed("dimension")?,
        default_dimension: entries.parsed("default_dimension")?,
        matryoshka: entries.parsed("matryoshka")?,
        max_tokens: entries.parsed("max_tokens")?,
        normalized: entries.parsed("normalized")?,
    };
    let mut tokenizer: Tokenizer = entries.parsed("tokenizer")?;
    tokenizer.set_encode_special_tokens(entries.parsed("splits_special_tokens")?);
    let text = TextTokenizer {
        before: entries.parsed("special_tokens_before")?,
        after: entries.parsed("special_tokens_after")?,
        keeps_end: entries.text("truncation_side")? == "left",
        vocabulary: entries.parsed("vocabulary_size")?,
        prompts: entries.parsed("prompts")?,
        max_tokens: description.max_tokens,
        tokenizer,
    };
    let special = text.before.len() + text.after.len();
    let sizes = 1..=description.dimension;
    if description.max_tokens <= special || !sizes.contains(&description.default_dimension) {
        return Err(broken(format!(
            "{}: max_tokens {} leaves no room beside {special} special tokens, or default_dimension {} is not of {sizes:?}",
            file.display(),
            description.max_tokens,
            description.default_dimension
        )));
    }
    Ok((description, text))
}

struct Entries<'a> {
    file: &'a Path,
    metadata: &'a HashMap<String, String>,
}

impl Entries<'_> {
    fn text(&self, name: &str) -> EmbeddingResult<&str> {
        self.metadata.get(&format!("akidb.{name}")).map(String::as_str).ok_or_else(|| {
            let file = self.file.display();
            broken(format!(
                "{file} has no akidb.{name} in its metadata: write it with `akidb-mlx export` of this version or a newer one"
            ))
        })
    }

    fn parsed<T: DeserializeOwned>(&self, name: &str) -> EmbeddingResult<T> {
        let text = self.text(name)?;
        serde_json::from_str(text).map_err(|error| {
            let (file, reason, found) = (self.file.display(), excerpt(&error.to_string(), 200), excerpt(text, 60));
            broken(format!("{file}: akidb.{name} of its metadata cannot be read ({reason}), found {found}"))
        })
    }
}

impl TextTokenizer {
    /// Choose the string to put before each text of a call.
    pub(crate) fn prompt<'a>(&'a self, options: &'a EmbedOptions) -> EmbeddingResult<&'a str> {
        if let Some(prompt) = &options.prompt {
            return Ok(prompt);
        }
        let Some(wanted) = &options.input_type else { return Ok("") };
        let role = ROLES.iter().find(|(role, _)| role == wanted).map(|(_, names)| *names);
        let names = role.unwrap_or(&[]).iter().copied().chain([wanted.as_str()]);
        if let Some(prompt) = names.into_iter().find_map(|name| self.prompts.get(name)) {
            return Ok(prompt);
        }
        if role.is_some() {
            return Ok("");
        }
        let known: Vec<&str> =
            ["query", "document"].into_iter().chain(self.prompts.keys().map(String::as_str)).collect();
        let wanted = excerpt(wanted, 60);
        Err(refused(format!("input_type {wanted:?} is none of this model's prompts: {}", known.join(", "))))
    }

    /// Tokenise a text of a call, with a prompt before it.
    pub(crate) fn tokenize(
        &self,
        index: usize,
        prompt: &str,
        text: &str,
        on_overflow: Overflow,
    ) -> EmbeddingResult<Tokenized> {
        let body = match prompt {
            "" => self.encode(index, text)?,
            prompt => self.encode(index, &format!("{prompt}{text}"))?,
        };
        let tokenized = self.fit(index, body, prompt, text, on_overflow)?;
        // A token that the tokenizer knows and the model does not.
        if let Some(number) = tokenized.windows.iter().flatten().find(|&&number| number >= self.vocabulary) {
            let token = excerpt(&self.tokenizer.id_to_token(*number).unwrap_or_default(), 60);
            return Err(bad_text(
                index,
                format!("text {index} spells {token:?}, a token that the model has no vector for: leave it out"),
            ));
        }
        Ok(tokenized)
    }

    fn fit(
        &self,
        index: usize,
        body: Ids,
        prompt: &str,
        text: &str,
        on_overflow: Overflow,
    ) -> EmbeddingResult<Tokenized> {
        let special = self.before.len() + self.after.len();
        let (capacity, token_count) = (self.max_tokens - special, body.len() + special);
        if token_count == 0 {
            let characters = text.chars().count();
            return Err(bad_text(
                index,
                format!("text {index} yields no token: found {characters} characters that are none"),
            ));
        }
        if body.len() <= capacity {
            return Ok(Tokenized { windows: vec![self.frame(&[&body])], token_count, truncated: false });
        }
        match on_overflow {
            Overflow::Truncate => {
                let kept = if self.keeps_end { &body[body.len() - capacity..] } else { &body[..capacity] };
                Ok(Tokenized { windows: vec![self.frame(&[kept])], token_count: self.max_tokens, truncated: true })
            }
            Overflow::Error => Err(bad_text(
                index,
                format!(
                    "text {index} has {token_count} tokens and the model takes {}: shorten it, or let it be truncated or \
                     chunked",
                    self.max_tokens
                ),
            )),
            Overflow::Chunk => self.chunk(index, prompt, text, capacity),
        }
    }

    /// Overlapping windows over a text, each behind the whole prompt.
    fn chunk(&self, index: usize, prompt: &str, text: &str, capacity: usize) -> EmbeddingResult<Tokenized> {
        let (body, prompt) = (self.encode(index, text)?, self.encode(index, prompt)?);
        let width = capacity.saturating_sub(prompt.len());
        let step = width - width / OVERLAP;
        if step == 0 {
            return Err(bad_text(
                index,
                format!(
                    "text {index} cannot be chunked: its prompt of {} tokens fills the {} that the model takes; use a \
                     shorter prompt",
                    prompt.len(),
                    self.max_tokens
                ),
            ));
        }
        let last = (body.len() + step).saturating_sub(width).max(1);
        let windows = (0..last)
            .step_by(step)
            .map(|start| self.frame(&[&prompt, &body[start..body.len().min(start + width)]]))
            .collect();
        let token_count = self.before.len() + prompt.len() + body.len() + self.after.len();
        Ok(Tokenized { windows, token_count, truncated: false })
    }

    fn frame(&self, parts: &[&[u32]]) -> Ids {
        [&[self.before.as_slice()], parts, &[self.after.as_slice()]].concat().concat()
    }

    fn encode(&self, index: usize, text: &str) -> EmbeddingResult<Ids> {
        let encoded = self.tokenizer.encode_fast(text, false);
        let encoded = encoded.map_err(|error| {
            let reason = excerpt(&error.to_string(), 200);
            bad_text(index, format!("text {index} cannot be tokenised: {reason}"))
        })?;
        Ok(encoded.get_ids().to_vec())
    }
}

//! The address of an API, and the key, which appears in no message.

use std::{env, fmt};

use reqwest::Url;

use super::options::OpenAiOptions;
use crate::EmbeddingResult;
use crate::failures::{excerpt, refused};

const DEFAULT_BASE_URL: &str = "https://api.openai.com/v1";
const LONGEST_MESSAGE: usize = 300;

/// A key, of which nothing is ever shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key(String);

impl Key {
    pub(crate) fn new(key: String) -> Self {
        Self(key.trim().to_owned())
    }

    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("…")
    }
}

/// The way to an API.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    /// Without a slash at its end.
    pub(crate) address: String,
    pub(crate) key: Option<Key>,
}

impl Access {
    /// Check an address and a key; each is the environment's if it is not given.
    pub(crate) fn new(options: &OpenAiOptions) -> EmbeddingResult<Self> {
        let set = |name| env::var(name).ok().filter(|value| !value.trim().is_empty());
        let given = options.base_url.clone().or_else(|| set("OPENAI_BASE_URL"));
        let address = check_address(given.as_deref().unwrap_or(DEFAULT_BASE_URL))?;
        let key = options.key.clone().filter(|key| !key.0.is_empty()).or_else(|| set("OPENAI_API_KEY").map(Key::new));
        if key.as_ref().is_some_and(|key| !key.0.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(refused("the key, which is not shown here, must be printable ASCII without spaces"));
        }
        if key.is_none() && given.is_none() {
            return Err(refused(
                "OpenAI's API needs a key: set OPENAI_API_KEY or give one; for another API, give base_url",
            ));
        }
        Ok(Self { address, key })
    }

    /// Return a message of the API or the network on one line, cut, and without keys.
    pub(crate) fn clean(&self, message: &str) -> String {
        let message = match &self.key {
            Some(key) => message.replace(key.secret(), "…"),
            None => message.to_owned(),
        };
        // Keys as services quote them back, also with stars in them.
        let begins = |word: &str, mark: &str| {
            word.len() > mark.len()
                && word.is_char_boundary(mark.len())
                && word[..mark.len()].eq_ignore_ascii_case(mark)
        };
        let mut after_bearer = false;
        let words = message.split_whitespace().map(|word| {
            let bare = word.trim_start_matches(|one: char| !one.is_alphanumeric());
            let secret = after_bearer || begins(bare, "sk-") || begins(bare, "rk-");
            after_bearer = bare.eq_ignore_ascii_case("bearer");
            if secret { "…" } else { word }
        });
        excerpt(&words.collect::<Vec<_>>().join(" "), LONGEST_MESSAGE)
    }
}

fn check_address(given: &str) -> EmbeddingResult<String> {
    // Its parts may hold secrets, so that they are not shown.
    let example = format!("as in {DEFAULT_BASE_URL}");
    let url = Url::parse(given.trim())
        .map_err(|error| refused(format!("base_url is no URL ({error}); write it {example}")))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(refused(format!("base_url must begin with http:// or https:// and a host, {example}")));
    }
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
        return Err(refused("base_url must have no user, password, query or fragment; give a key as OPENAI_API_KEY"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

//! Webhooks: who may tell a sensor something, and what was told.

use axum::http::{HeaderMap, header};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use subak_domain::Secret;
use subtle::ConstantTimeEq;

use crate::problem::Problem;

/// Bytes that one delivery may have.
pub const ITEM_LENGTH_MAX: usize = 1024 * 1024;

/// Bytes that the id of a delivery may have.
const ID_LENGTH_MAX: usize = 200;

/// Headers in which senders name a delivery, best first.
const ID_HEADERS: &[&str] = &["idempotency-key", "x-github-delivery", "webhook-id"];

/// The header with a signature where the sensor names no other.
const SIGNATURE_HEADER: &str = "x-subak-signature";

/// A sensor that is told things.
#[derive(Debug, Clone)]
pub struct Hook {
    /// What senders must know.
    pub secret: Secret,
    /// The header with `sha256=` and the HMAC of the body, in hexadecimal digits. Where the sensor names one, nothing else is taken.
    pub signature_header: Option<String>,
}

impl Hook {
    /// Whether the sender may know the secret, as far as its headers tell: it signs, which the body shows, or it says the secret.
    pub(crate) fn may_admit(&self, headers: &HeaderMap) -> bool {
        let name = self.signature_header.as_deref().unwrap_or(SIGNATURE_HEADER);
        headers.contains_key(name) || self.admits(headers, &[])
    }

    /// Whether the sender knows the secret.
    pub(crate) fn admits(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        let name = self.signature_header.as_deref().unwrap_or(SIGNATURE_HEADER);
        if let Some(signature) = headers.get(name) {
            return signature.to_str().is_ok_and(|signature| self.is_signed(signature, body));
        }
        let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        // Both as digests, so that nothing tells how long the secret is.
        let is_same = |said: &str| bool::from(digest(said.as_bytes()).ct_eq(&digest(self.secret.expose().as_bytes())));
        self.signature_header.is_none() && bearer.is_some_and(is_same)
    }

    fn is_signed(&self, signature: &str, body: &[u8]) -> bool {
        let Some(bytes) = bytes_of(signature.strip_prefix("sha256=").unwrap_or(signature)) else { return false };
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.secret.expose().as_bytes()) else { return false };
        mac.update(body);
        mac.verify_slice(&bytes).is_ok()
    }
}

fn digest(bytes: &[u8]) -> Vec<u8> {
    use sha2::Digest as _;
    Sha256::digest(bytes).to_vec()
}

/// Bytes out of hexadecimal digits.
fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let is_sound = digits.len().is_multiple_of(2) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let pairs = (0..digits.len() / 2).map(|at| u8::from_str_radix(digits.get(at * 2..at * 2 + 2)?, 16).ok());
    if is_sound { pairs.collect() } else { None }
}

/// What the sender calls the delivery.
pub(crate) fn id_of(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = ID_HEADERS.iter().find_map(|name| headers.get(*name)) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Problem::id())?.trim();
    let is_sound = !text.is_empty() && text.len() <= ID_LENGTH_MAX;
    if is_sound { Ok(Some(text.to_owned())) } else { Err(Problem::id()) }
}

/// The body: JSON where it says so, or where it is; else its text. `None` for what is neither.
pub(crate) fn value_of(headers: &HeaderMap, body: &[u8]) -> Option<Value> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    match serde_json::from_slice(body) {
        Ok(value) => Some(value),
        Err(_) if kind.contains("json") => None,
        Err(_) => std::str::from_utf8(body).ok().map(Value::from),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn headers(entries: &[(&'static str, &str)]) -> HeaderMap {
        entries.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a value"))).collect()
    }

    /// The signature is the test case of GitHub's documentation.
    #[test]
    fn senders_prove_that_they_know_the_secret() {
        let hook = |header: Option<&str>| Hook {
            secret: Secret::new("It's a Secret to Everybody"),
            signature_header: header.map(str::to_owned),
        };
        let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let bearer = headers(&[("authorization", "Bearer It's a Secret to Everybody")]);
        let body = b"Hello, World!";
        assert!(hook(None).admits(&bearer, body));
        assert!(hook(None).admits(&headers(&[("x-subak-signature", signature)]), body));
        assert!(hook(Some("x-hub-signature-256")).admits(&headers(&[("x-hub-signature-256", signature)]), body));
        let refused: [(Option<&str>, HeaderMap, &[u8]); 7] = [
            (None, headers(&[]), body),
            (None, headers(&[("authorization", "Bearer It's a Secret")]), body),
            (None, headers(&[("authorization", "It's a Secret to Everybody")]), body),
            (None, headers(&[("x-subak-signature", signature)]), b"Hello, World?"),
            (None, headers(&[("x-subak-signature", "sha256=zz")]), body),
            (Some("x-hub-signature-256"), bearer, body),
            (Some("x-hub-signature-256"), headers(&[("x-subak-signature", signature)]), body),
        ];
        for (header, sent, body) in refused {
            assert!(!hook(header).admits(&sent, body), "{header:?} {sent:?}");
        }
    }

    #[test]
    fn bodies_are_json_or_text() {
        let json = headers(&[("content-type", "application/json")]);
        assert_eq!(value_of(&json, b"{\"a\": 1}"), Some(serde_json::json!({ "a": 1 })));
        assert_eq!(value_of(&json, b"{"), None);
        assert_eq!(value_of(&headers(&[]), b"hello"), Some(Value::from("hello")));
        assert_eq!(value_of(&headers(&[]), &[0xff, 0xfe]), None);
        assert!(id_of(&headers(&[("idempotency-key", " ")])).is_err());
        assert_eq!(id_of(&headers(&[("x-github-delivery", "72d3162e")])), Ok(Some("72d3162e".to_owned())));
    }
}

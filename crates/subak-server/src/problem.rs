//! Answers as JSON, and the one shape of errors.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use subak_diag::codes;

/// JSON with a status.
pub struct Answer(pub StatusCode, pub Value);

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = (self.0, format!("{}\n", self.1)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    NotFound,
    Method,
    Host(String),
    Secret,
    TooLarge,
    TooSlow,
    Body,
    Id,
    Full,
    State(String),
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, code, message, help) = match self {
            Self::NotFound => (
                StatusCode::NOT_FOUND,
                codes::HTTP_UNKNOWN,
                "there is nothing at this path".to_owned(),
                "`subak docs http-api` lists the paths".to_owned(),
            ),
            Self::Method => (
                StatusCode::METHOD_NOT_ALLOWED,
                codes::HTTP_UNKNOWN,
                "this path has other methods".to_owned(),
                "`subak docs http-api` lists them".to_owned(),
            ),
            Self::Host(name) => (
                StatusCode::MISDIRECTED_REQUEST,
                codes::HTTP_HOST,
                format!("this server is not called `{name}`"),
                "call it `localhost`, or start it with `--host NAME`".to_owned(),
            ),
            Self::Secret => (
                StatusCode::UNAUTHORIZED,
                codes::HTTP_ACCESS,
                "there is no such webhook, or its secret is another".to_owned(),
                "send `Authorization: Bearer SECRET`, or the signature that the sensor asks for".to_owned(),
            ),
            Self::TooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                codes::HTTP_BODY,
                format!("the body has more than {} bytes, or did not arrive", crate::ITEM_LENGTH_MAX),
                "send where the data are, and not the data".to_owned(),
            ),
            Self::TooSlow => (
                StatusCode::REQUEST_TIMEOUT,
                codes::HTTP_BODY,
                "the request took too long".to_owned(),
                "send it again".to_owned(),
            ),
            Self::Body => (
                StatusCode::BAD_REQUEST,
                codes::HTTP_BODY,
                "the body says that it is JSON, and is none; or it is no text".to_owned(),
                "send JSON as `application/json`, or text as `text/plain`".to_owned(),
            ),
            Self::Id => (
                StatusCode::BAD_REQUEST,
                codes::HTTP_BODY,
                "the id of the delivery has more than 200 bytes, or letters that are none".to_owned(),
                "send a short `Idempotency-Key` of visible letters".to_owned(),
            ),
            Self::Full => (
                StatusCode::SERVICE_UNAVAILABLE,
                codes::HTTP_FULL,
                "so many deliveries wait for this sensor that no more are taken".to_owned(),
                "send it again later; `subak automation show SENSOR` tells why they wait".to_owned(),
            ),
            Self::State(why) => (
                StatusCode::SERVICE_UNAVAILABLE,
                codes::STATE_FAILED,
                format!("the state of the project failed: {why}"),
                "send it again later".to_owned(),
            ),
        };
        let mut response =
            Answer(status, json!({ "error": { "code": code.id, "message": message, "help": help } })).into_response();
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

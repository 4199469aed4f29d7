//! The one shape of errors, with the codes of the command line.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use subak_diag::{Code, Diagnostic, codes};
use subak_domain::Permission;
use utoipa::ToSchema;

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The status of the answer.
    pub status: StatusCode,
    /// What failed, why, what is now true, and what to do.
    pub error: Box<ApiError>,
    /// Seconds after which it is worth asking again.
    pub(crate) wait_seconds: Option<u64>,
}

/// When somebody is to ask again while nothing can be written.
const STALL_SECONDS: u64 = 5;

/// An error: what failed, why, what is now true of the data, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, ToSchema)]
pub struct ApiError {
    /// A stable code; `subak explain CODE` says more.
    #[schema(example = "SBK0601")]
    pub code: String,
    /// What failed, one sentence.
    pub message: String,
    /// Why, outermost cause first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What is now true of the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// What to do next.
    pub help: String,
    /// What the log of the server calls the request.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_id: String,
}

/// The body of an answer that is an error.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorBody {
    /// The error.
    pub error: ApiError,
}

impl Problem {
    /// An error with a code and what to do.
    pub fn new(status: StatusCode, code: Code, message: impl Into<String>, help: impl Into<String>) -> Self {
        let (message, help) = (message.into(), help.into());
        let error = ApiError { code: code.id.to_owned(), message, help, ..ApiError::default() };
        Self { status, error: Box::new(error), wait_seconds: None }
    }

    /// What a command would have said.
    pub fn of(status: StatusCode, problem: &Diagnostic) -> Self {
        let error = ApiError {
            code: problem.code.id.to_owned(),
            message: problem.message.clone(),
            causes: problem.causes.clone(),
            data: problem.data.clone(),
            help: problem.help.join("; "),
            request_id: String::new(),
        };
        Self { status, error: Box::new(error), wait_seconds: None }
    }

    /// There is nothing of this kind with this name.
    pub fn not_found(kind: &str, name: &str) -> Self {
        let message = format!("there is no {kind} `{name}`");
        Self::new(StatusCode::NOT_FOUND, codes::HTTP_UNKNOWN, message, "look it up in its list")
    }

    /// A value that cannot be taken.
    pub fn invalid(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, codes::HTTP_VALUE, message, help)
    }

    /// Something moved since it was looked at.
    pub fn changed(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, codes::HTTP_CHANGED, message, help)
    }

    /// The state of the project cannot be read or written.
    pub fn state(why: impl Into<String>) -> Self {
        let message = format!("the state of the project failed: {}", why.into());
        Self::new(StatusCode::SERVICE_UNAVAILABLE, codes::STATE_FAILED, message, "send it again later")
    }

    pub(crate) fn no_path() -> Self {
        let help = "`subak docs http-api` lists the paths";
        Self::new(StatusCode::NOT_FOUND, codes::HTTP_UNKNOWN, "there is nothing at this path", help)
    }

    pub(crate) fn method() -> Self {
        let help = "`subak docs http-api` lists them";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, codes::HTTP_UNKNOWN, "this path has other methods", help)
    }

    pub(crate) fn host(name: &str) -> Self {
        let message = format!("this server is not called `{name}`");
        let help = "call it `localhost`, or start it with `--host NAME`";
        Self::new(StatusCode::MISDIRECTED_REQUEST, codes::HTTP_HOST, message, help)
    }

    pub(crate) fn secret() -> Self {
        let message = "there is no such webhook, or its secret is another";
        let help = "send `Authorization: Bearer SECRET`, or the signature that the sensor asks for";
        Self::new(StatusCode::UNAUTHORIZED, codes::HTTP_ACCESS, message, help)
    }

    pub(crate) fn unknown_caller() -> Self {
        let message = "nobody has signed in, or the token is not worth anything";
        let help = "sign in, or send `Authorization: Bearer sbk_pat_…`; `subak token create` makes one";
        Self::new(StatusCode::UNAUTHORIZED, codes::HTTP_SIGN_IN, message, help)
    }

    pub(crate) fn unknown_name() -> Self {
        let message = "the name or the password is another";
        let help = "try again; an admin sets a new password with `subak user set NAME --password-stdin`";
        Self::new(StatusCode::UNAUTHORIZED, codes::HTTP_SIGN_IN, message, help)
    }

    pub(crate) fn forbidden(permission: Permission) -> Self {
        let message = format!("this needs the permission `{}`", permission.as_str());
        let help = "somebody with the role `admin` can grant it";
        Self::new(StatusCode::FORBIDDEN, codes::HTTP_FORBIDDEN, message, help)
    }

    pub(crate) fn origin() -> Self {
        let message = "the request comes from a page of somebody else, or does not say from where";
        let help = "send it from the web app, or with a token and without `Origin`";
        Self::new(StatusCode::FORBIDDEN, codes::HTTP_ORIGIN, message, help)
    }

    pub(crate) fn too_many(seconds: u64) -> Self {
        let help = format!("wait {seconds} s, then send it again");
        let problem = Self::new(StatusCode::TOO_MANY_REQUESTS, codes::HTTP_TOO_MANY, "there are too many requests", help);
        Self { wait_seconds: Some(seconds), ..problem }
    }

    pub(crate) fn too_large(bytes_max: usize) -> Self {
        let message = format!("the body has more than {bytes_max} bytes, or did not arrive");
        let help = "send where the data are, and not the data";
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, codes::HTTP_BODY, message, help)
    }

    pub(crate) fn too_slow(is_safe: bool) -> Self {
        let help = if is_safe { "send it again" } else { "it may be done all the same: look before you send it again" };
        Self::new(StatusCode::REQUEST_TIMEOUT, codes::HTTP_BODY, "the request took too long", help)
    }

    /// Nothing can be written just now, so nothing was done.
    pub(crate) fn stalled(why: &str) -> Self {
        let message = format!("the state cannot be written just now, and nothing was done: {why}");
        let help = "send it again when `GET /readyz` says so";
        Self {
            wait_seconds: Some(STALL_SECONDS),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, codes::STATE_FAILED, message, help)
        }
    }

    pub(crate) fn body(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, codes::HTTP_BODY, message, "`subak docs http-api` describes the body")
    }

    pub(crate) fn no_text() -> Self {
        let message = "the body says that it is JSON, and is none; or it is no text";
        let help = "send JSON as `application/json`, or text as `text/plain`";
        Self::new(StatusCode::BAD_REQUEST, codes::HTTP_BODY, message, help)
    }

    pub(crate) fn kind() -> Self {
        let message = "the body is not said to be JSON";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, codes::HTTP_BODY, message, "send `Content-Type: application/json`")
    }

    pub(crate) fn id() -> Self {
        let message = "the id of the delivery has more than 200 bytes, or letters that are none";
        Self::new(StatusCode::BAD_REQUEST, codes::HTTP_BODY, message, "send a short `Idempotency-Key` of visible letters")
    }

    pub(crate) fn full() -> Self {
        let message = "so many deliveries wait for this sensor that no more are taken";
        let help = "send it again later; `subak automation show SENSOR` tells why they wait";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, codes::HTTP_FULL, message, help)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status;
        let mut response = json(status, &ErrorBody { error: (*self.error).clone() });
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.wait_seconds {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// JSON with a status.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    // What is declared as an answer has text for keys, which is all that could fail.
    let text = serde_json::to_string(body).unwrap_or_else(|error| format!("{{\"error\":{{\"message\":\"{error}\"}}}}"));
    let mut response = (status, format!("{text}\n")).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

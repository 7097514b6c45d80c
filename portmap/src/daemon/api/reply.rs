//! Answers: JSON as Go's encoder writes it, and refusals with Docker's texts and statuses.

use std::convert::Infallible;

use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use netcore::controller::{Class, ControllerError};
use serde::Serialize;

/// Why a request isn't answered with what it asks for.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    message: String,
}

/// A body in JSON. The client compares the whole content type: no parameter may follow.
pub(super) struct Json<T>(pub(super) T);

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    #[cfg(test)]
    pub(super) fn shown(&self) -> String {
        format!("{} {}", self.status.as_u16(), self.message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Message {
            message: String,
        }
        // No body may follow.
        if self.status == StatusCode::NOT_MODIFIED {
            return self.status.into_response();
        }
        (self.status, Json(Message { message: self.message })).into_response()
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(mut body) => {
                body.push(b'\n');
                ([(header::CONTENT_TYPE, "application/json")], Body::from(body)).into_response()
            }
            Err(error) => {
                tracing::error!(%error, "an answer can't be encoded");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

impl From<ControllerError> for Refusal {
    fn from(error: ControllerError) -> Self {
        let status = match error.class() {
            Class::NotModified => StatusCode::NOT_MODIFIED,
            Class::Invalid => StatusCode::BAD_REQUEST,
            Class::Forbidden => StatusCode::FORBIDDEN,
            Class::NotFound => StatusCode::NOT_FOUND,
            Class::Conflict => StatusCode::CONFLICT,
            Class::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Class::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut message = error.to_string();
        // Where it isn't part of the text already, the cause is what helps.
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            let text = error.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            cause = error.source();
        }
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = %message, "an operation failed");
        }
        Self::new(status, message)
    }
}

impl From<Infallible> for Refusal {
    fn from(impossible: Infallible) -> Self {
        match impossible {}
    }
}

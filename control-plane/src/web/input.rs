//! What requests carry, with errors that people understand.

use super::i18n::Message;
use crate::error::{Error, Result};
use axum::Form;
use axum::extract::rejection::{FormRejection, JsonRejection};
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::header;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

/// A form's fields.
pub struct Fields<T>(pub T);

/// A JSON body.
pub struct Json<T>(pub T);

/// An address's query; one that makes no sense is as good as none.
pub struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Fields<T> {
    type Rejection = Error;
    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let form: Result<Form<T>, FormRejection> = Form::from_request(request, state).await;
        form.map(|Form(fields)| Self(fields))
            .map_err(|e| Error::invalid(Message::key("error-form")).because(e))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Error;
    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let json: Result<axum::Json<T>, JsonRejection> = axum::Json::from_request(request, state).await;
        // What serde says names the field; it is about the asker's own words.
        json.map(|axum::Json(body)| Self(body)).map_err(|e| Error::invalid(e.body_text()))
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequestParts<S> for Params<T> {
    type Rejection = std::convert::Infallible;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let query: Result<Query<T>, _> = Query::from_request_parts(parts, state).await;
        Ok(Self(query.map(|Query(params)| params).unwrap_or_default()))
    }
}

/// Whether a request has no body at all, for those that may do without.
pub fn is_empty(request: &Request) -> bool {
    let length = request.headers().get(header::CONTENT_LENGTH);
    length.map_or(!request.headers().contains_key(header::TRANSFER_ENCODING), |l| l == "0")
}

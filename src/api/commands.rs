//! What a job can be told: one path a command, each answered with the job as the command left it.

use axum::extract::State;
use axum::response::Response;

use super::Shared;
use super::backend::{CommandJob, Role};
use super::input::{Id, IfMatch, Key, NoBody, Query, Who};
use super::jobs::{JobView, answer, visible};
use super::problem::Problem;
use crate::job::Command;

/// A handler for each command. They differ in their words alone, and the words are the documentation.
macro_rules! commands {
    ($($(#[doc = $doc:literal])+ $name:ident $path:literal $operation:literal $command:expr;)*) => {$(
        $(#[doc = $doc])+
        #[utoipa::path(post, path = $path, tag = "commands", operation_id = $operation,
            params(("id" = Uuid, Path, description = "The job"),
                ("If-Match" = Option<String>, Header,
                    description = "The generation that the caller has seen, as ETag has it",
                    pattern = r#"^"[0-9]{1,18}"$"#, min_length = 3, max_length = 20),
                ("Idempotency-Key" = Option<String>, Header,
                    description = "Names the request, so that it can be repeated", pattern = "^[!-~]{1,255}$", min_length = 1, max_length = 255)),
            responses((status = 202, description = "The command is taken", body = JobView,
                headers(("Location" = String, description = "Where the job is"),
                    ("ETag" = String, description = "Its generation")))))]
        pub async fn $name(
            State(shared): State<Shared>,
            who: Who,
            Id(id): Id,
            if_match: IfMatch,
            key: Key,
            query: Query,
            _: NoBody,
        ) -> Result<Response, Problem> {
            query.end()?;
            let job = visible(&shared, &who, id).await?;
            let caller = who.may(Role::Operate, &job.project)?.clone();
            let request = format!("POST {}", $path.replace("{id}", &id.to_string()));
            let idempotency = key.scoped(&caller, &job.project, &request, &());
            let if_match = if_match.of_job(&job);
            let asked = CommandJob { id, command: $command, if_match, idempotency, caller };
            let done = shared.backend.command(asked).await?;
            Ok(answer(done.value, done.replayed))
        }
    )*};
}

commands! {
    /// Stop at a safe point, until `resume`.
    pause "/v1/jobs/{id}/pause" "pause_job" Command::Pause;
    /// Go on with a job that is paused, or that failed and can go on.
    resume "/v1/jobs/{id}/resume" "resume_job" Command::Resume;
    /// End a job before its time. What was copied stays.
    cancel "/v1/jobs/{id}/cancel" "cancel_job" Command::Cancel;
    /// Make the last pass of a migration that is ready. Nobody may write to the source from now on.
    cutover "/v1/jobs/{id}/cutover" "cut_over_job" Command::Cutover;
    /// Give a cutover up: the job is ready again, and its source may be written to.
    abort "/v1/jobs/{id}/abort" "abort_job" Command::Abort;
    /// Try again what failed, and only that.
    retry_failed "/v1/jobs/{id}/retry-failed" "retry_job" Command::RetryFailed;
    /// Compare both sides now.
    verify "/v1/jobs/{id}/verify" "verify_job" Command::Verify;
}

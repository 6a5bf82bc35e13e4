//! Consistency groups: jobs that cut over together. Who belongs to one stands in the jobs.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::backend::{CommandGroup, CreateGroup, Role};
use super::input::{DEFAULT_PROJECT, Json, Key, Name, NoBody, Query, Who, invalid};
use super::page::{OfProject, after, limit, visible};
use super::problem::Problem;
use super::{Shared, unreadable};
use crate::job::{self, Command, Group, GroupState, Job, State as JobState, word};
use crate::store::control::Reader;

/// A group to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewGroup {
    #[schema(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$", example = "nightly")]
    pub name: String,
    #[serde(default = "default_project")]
    #[schema(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$", default = "default")]
    pub project: String,
}

fn default_project() -> String {
    DEFAULT_PROJECT.into()
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    pub id: Uuid,
    pub state: JobState,
    pub generation: u64,
}

/// A group, where it stands, and its members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupView {
    #[serde(flatten)]
    pub group: Group,
    pub state: GroupState,
    /// In the order in which they were made.
    pub members: Vec<Member>,
}

impl GroupView {
    fn of(group: Group, members: &[Job]) -> Self {
        let member = |job: &Job| Member { id: job.id, state: job.state, generation: job.generation };
        Self { group, state: job::group::state(members), members: members.iter().map(member).collect() }
    }

    fn read(reader: &Reader, group: Group) -> Result<Self, Problem> {
        let members = reader.members(&group.project, &group.name).map_err(|error| unreadable(&error))?;
        Ok(Self::of(group, &members))
    }
}

/// A page of groups.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupList {
    pub groups: Vec<GroupView>,
    /// The marker of the next page; null where this is the last.
    #[schema(pattern = "^[0-9]{1,18}$")]
    pub next: Option<String>,
}

/// A page of groups.
#[derive(Clone, Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[allow(dead_code, reason = "it describes parameters, which are read by hand")]
pub struct GroupPage {
    /// Groups of the page, at most.
    #[param(minimum = 1, maximum = 1000, default = 100, required = false)]
    limit: u32,
    /// `next` of the page before.
    #[param(minimum = 0, maximum = 999_999_999_999_999_999_u64, default = 0, required = false)]
    marker: u64,
    /// Only groups of this project.
    #[param(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$", required = false)]
    project: String,
}

/// Make a group. A job joins it by naming it in its specification.
///
/// A group that is there already is given back, so the request can be repeated.
#[utoipa::path(post, path = "/v1/groups", tag = "groups", operation_id = "create_group", request_body = NewGroup,
    responses((status = 201, description = "Made", body = GroupView,
            headers(("Location" = String, description = "Where the group is"))),
        (status = 200, description = "It was there already", body = GroupView)))]
pub async fn create(State(shared): State<Shared>, who: Who, query: Query, body: Json) -> Result<Response, Problem> {
    query.end()?;
    let NewGroup { name, project } = body.parse()?;
    word("name", &name).map_err(invalid)?;
    word("project", &project).map_err(invalid)?;
    let caller = who.may(Role::Operate, &project)?.clone();
    let made = shared.backend.group_create(CreateGroup { project, name, caller }).await?;
    let status = if made.replayed { StatusCode::OK } else { StatusCode::CREATED };
    let location = format!("/v1/groups/{}?project={}", made.value.name, made.value.project);
    let view = shared.read(move |reader| GroupView::read(reader, made.value)).await?;
    let mut response = (status, axum::Json(view)).into_response();
    if let Ok(value) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    Ok(response)
}

/// A page of groups.
#[utoipa::path(get, path = "/v1/groups", tag = "groups", operation_id = "list_groups", params(GroupPage),
    responses((status = 200, description = "The page", body = GroupList)))]
pub async fn list(State(shared): State<Shared>, who: Who, mut query: Query) -> Result<axum::Json<GroupList>, Problem> {
    let (limit, marker) = (limit(&mut query)?, after(&mut query)?);
    let project = query.one("project")?;
    query.end()?;
    if let Some(project) = &project {
        word("project", project).map_err(invalid)?;
        who.may(Role::Read, project)?;
    }
    let projects = visible(&who.0, project);
    let list = shared
        .read(move |reader| {
            let all = reader.groups(projects.as_deref()).map_err(|error| unreadable(&error))?;
            let from = usize::try_from(marker).unwrap_or(usize::MAX).min(all.len());
            let to = from.saturating_add(limit).min(all.len());
            let next = (to < all.len()).then(|| to.to_string());
            let views = all.into_iter().skip(from).take(to - from).map(|group| GroupView::read(reader, group));
            Ok(GroupList { groups: views.collect::<Result<_, _>>()?, next })
        })
        .await?;
    Ok(axum::Json(list))
}

async fn find(shared: &Shared, project: String, name: String) -> Result<GroupView, Problem> {
    shared
        .read(move |reader| {
            let found = reader.group(&project, &name).map_err(|error| unreadable(&error))?;
            GroupView::read(reader, found.ok_or_else(|| Problem::not_found("group"))?)
        })
        .await
}

/// The project of the query, if it is one of the caller's. What is in another one is not found.
fn project_of(query: &mut Query, who: &Who) -> Result<String, Problem> {
    let project = query.project()?;
    if who.0.projects.has(&project) { Ok(project) } else { Err(Problem::not_found("group")) }
}

/// A group.
#[utoipa::path(get, path = "/v1/groups/{name}", tag = "groups", operation_id = "show_group",
    params(("name" = String, Path, description = "The group's name", pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"), OfProject),
    responses((status = 200, description = "The group", body = GroupView)))]
pub async fn show(
    State(shared): State<Shared>,
    who: Who,
    Name(name): Name,
    mut query: Query,
) -> Result<axum::Json<GroupView>, Problem> {
    let project = project_of(&mut query, &who)?;
    query.end()?;
    find(&shared, project, name).await.map(axum::Json)
}

/// Remove a group that has no members any more.
#[utoipa::path(delete, path = "/v1/groups/{name}", tag = "groups", operation_id = "delete_group",
    params(("name" = String, Path, description = "The group's name", pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"), OfProject),
    responses((status = 204, description = "Removed")))]
pub async fn delete(
    State(shared): State<Shared>,
    who: Who,
    Name(name): Name,
    mut query: Query,
) -> Result<StatusCode, Problem> {
    let project = project_of(&mut query, &who)?;
    query.end()?;
    let caller = who.may(Role::Operate, &project)?.clone();
    shared.backend.group_delete(project, name, caller).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A handler for each command. They differ in their words alone, and the words are the documentation.
macro_rules! commands {
    ($($(#[doc = $doc:literal])+ $name:ident $path:literal $operation:literal $command:expr;)*) => {$(
        $(#[doc = $doc])+
        #[utoipa::path(post, path = $path, tag = "groups", operation_id = $operation,
            params(("name" = String, Path, description = "The group's name",
                    pattern = r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$"),
                OfProject,
                ("Idempotency-Key" = Option<String>, Header,
                    description = "Names the request, so that it can be repeated", pattern = "^[!-~]{1,255}$", min_length = 1, max_length = 255)),
            responses((status = 202, description = "All members have taken the command", body = GroupView)))]
        pub async fn $name(
            State(shared): State<Shared>,
            who: Who,
            Name(name): Name,
            key: Key,
            mut query: Query,
            _: NoBody,
        ) -> Result<Response, Problem> {
            let project = project_of(&mut query, &who)?;
            query.end()?;
            let caller = who.may(Role::Operate, &project)?.clone();
            let request = format!("POST {}", $path.replace("{name}", &name));
            let idempotency = key.scoped(&caller, &project, &request, &());
            let asked = CommandGroup { project, name, command: $command, idempotency, caller };
            let done = shared.backend.group_command(asked).await?;
            let view = shared.read(move |reader| GroupView::read(reader, done.value)).await?;
            Ok((StatusCode::ACCEPTED, axum::Json(view)).into_response())
        }
    )*};
}

commands! {
    /// Cut all members over together. All have to be ready.
    cutover "/v1/groups/{name}/cutover" "cut_over_group" Command::Cutover;
    /// Give the cutover of all members up.
    abort "/v1/groups/{name}/abort" "abort_group" Command::Abort;
    /// Stop all members at a safe point.
    pause "/v1/groups/{name}/pause" "pause_group" Command::Pause;
    /// Go on with all members.
    resume "/v1/groups/{name}/resume" "resume_group" Command::Resume;
    /// End all members before their time.
    cancel "/v1/groups/{name}/cancel" "cancel_group" Command::Cancel;
}

//! The identity API.

use super::Who::{Admin, Himself, Manager, Member, Nobody, Reader, Stranger, Warden};
use super::things::Thing::{
    AccessRule, ApplicationCredential, Assigned, Credential, Domain, DomainDisabled, Endpoint, Group, GroupWithPerson,
    Implication, Inherited, Limit, Nothing, Person, Project, ProjectTagged, Region, RegisteredLimit, Role, Service,
    Token, Trust,
};
use super::{Case, case, walk};
use arcus_types::policy::Rule;

const LOG_IN: &str = r#"{"auth":{"identity":{"methods":["password"],
    "password":{"user":{"name":"{name}","domain":{"id":"default"},"password":"{password}"}}}}}"#;
const SUBJECT: (&str, &str) = ("x-subject-token", "{subject}");

pub fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("GET /identity", Nothing, 300).because("the list of versions is a choice, which HTTP calls 300"),
        case("GET /identity/", Nothing, 300).because("the list of versions is a choice, which HTTP calls 300"),
        case("GET /identity/v3", Nothing, 200),
        case("GET /identity/v3/", Nothing, 200),
        case("POST /identity/v3/auth/tokens", Person, 201).body(LOG_IN).by(Nobody),
        case("GET /identity/v3/auth/tokens", Token, 200).header(SUBJECT.0, SUBJECT.1),
        case("DELETE /identity/v3/auth/tokens", Token, 204).header(SUBJECT.0, SUBJECT.1),
        case("GET /identity/v3/auth/catalog", Nothing, 200),
        case("GET /identity/v3/auth/projects", Nothing, 200),
        case("GET /identity/v3/auth/domains", Nothing, 200),
        case("GET /identity/v3/auth/system", Nothing, 200),
        case("GET /identity/v3/services", Nothing, 200),
        case("GET /identity/v3/services/{service_id}", Nothing, 200),
        case("GET /identity/v3/endpoints", Nothing, 200),
        case("GET /identity/v3/endpoints/{endpoint_id}", Nothing, 200),
        case("GET /identity/v3/regions", Nothing, 200),
        case("GET /identity/v3/regions/{region_id}", Nothing, 200).with("region_id", "RegionOne"),
    ];
    cases.extend(catalog());
    cases.extend(limits());
    cases.extend(delegated());
    cases.extend(places());
    cases.extend(users());
    cases.extend(groups());
    cases.extend(roles());
    cases.extend(assignments());
    cases
}

fn catalog() -> Vec<Case> {
    vec![
        case("POST /identity/v3/services", Nothing, 201).body(r#"{"service":{"type":"{fresh}"}}"#),
        case("PATCH /identity/v3/services/{service_id}", Service, 200).body(r#"{"service":{"name":"{fresh}"}}"#),
        case("DELETE /identity/v3/services/{service_id}", Service, 204),
        case("POST /identity/v3/endpoints", Service, 201).body(
            r#"{"endpoint":{"service_id":"{service_id}","interface":"public","url":"https://elsewhere.test/{fresh}"}}"#,
        ),
        case("PATCH /identity/v3/endpoints/{endpoint_id}", Endpoint, 200).body(r#"{"endpoint":{"enabled":false}}"#),
        case("DELETE /identity/v3/endpoints/{endpoint_id}", Endpoint, 204),
        case("POST /identity/v3/regions", Nothing, 201).body(r#"{"region":{"id":"{fresh}"}}"#),
        case("PUT /identity/v3/regions/{region_id}", Nothing, 201)
            .with("region_id", "{fresh}")
            .body(r#"{"region":{"description":"x"}}"#),
        case("PATCH /identity/v3/regions/{region_id}", Region, 200).body(r#"{"region":{"description":"x"}}"#),
        case("DELETE /identity/v3/regions/{region_id}", Region, 204),
    ]
}

fn limits() -> Vec<Case> {
    vec![
        case("GET /identity/v3/registered_limits", RegisteredLimit, 200),
        case("POST /identity/v3/registered_limits", Nothing, 201).body(
            r#"{"registered_limits":[{"service_id":"{service_id}","resource_name":"{fresh}","default_limit":3}]}"#,
        ),
        case("GET /identity/v3/registered_limits/{registered_limit_id}", RegisteredLimit, 200),
        case("PATCH /identity/v3/registered_limits/{registered_limit_id}", RegisteredLimit, 200)
            .body(r#"{"registered_limit":{"default_limit":4}}"#),
        case("DELETE /identity/v3/registered_limits/{registered_limit_id}", RegisteredLimit, 204),
        case("GET /identity/v3/limits/model", Nothing, 200),
        case("GET /identity/v3/limits", Nothing, 200),
        case("POST /identity/v3/limits", RegisteredLimit, 201).body(
            r#"{"limits":[{"service_id":"{service_id}","resource_name":"{resource}","resource_limit":3,
                "project_id":"{project}"}]}"#,
        ),
        case("GET /identity/v3/limits/{limit_id}", Limit, 200).rule(Rule::ProjectReader),
        case("PATCH /identity/v3/limits/{limit_id}", Limit, 200).body(r#"{"limit":{"resource_limit":4}}"#),
        case("DELETE /identity/v3/limits/{limit_id}", Limit, 204),
    ]
}

/// What users have for themselves, and what they let others do.
fn delegated() -> Vec<Case> {
    const TRUST: &str = r#"{"trust":{"trustor_user_id":"{user}","trustee_user_id":"{admin_user}",
        "project_id":"{project}","impersonation":false,"roles":[{"name":"member"}]}}"#;
    vec![
        case("GET /identity/v3/OS-TRUST/trusts", Trust, 200).query("trustor_user_id={user}"),
        case("GET /identity/v3/OS-TRUST/trusts/", Trust, 200).query("trustor_user_id={user}"),
        case("POST /identity/v3/OS-TRUST/trusts", Nothing, 201).body(TRUST),
        case("GET /identity/v3/OS-TRUST/trusts/{trust_id}", Trust, 200),
        case("GET /identity/v3/OS-TRUST/trusts/{trust_id}/roles", Trust, 200),
        case("GET /identity/v3/OS-TRUST/trusts/{trust_id}/roles/{role_id}", Trust, 200),
        case("DELETE /identity/v3/OS-TRUST/trusts/{trust_id}", Trust, 204),
        case("GET /identity/v3/users/{user_id}/access_rules", AccessRule, 200),
        case("GET /identity/v3/users/{user_id}/access_rules/{access_rule_id}", AccessRule, 200),
        case("DELETE /identity/v3/users/{user_id}/access_rules/{access_rule_id}", AccessRule, 204),
        case("GET /identity/v3/credentials", Credential, 200),
        case("POST /identity/v3/credentials", Nothing, 201).body(r#"{"credential":{"type":"cert","blob":"x"}}"#),
        case("POST /identity/v3/credentials", Nothing, 201)
            .body(r#"{"credential":{"type":"cert","blob":"x","user_id":"{user}"}}"#),
        case("GET /identity/v3/credentials/{credential_id}", Credential, 200),
        case("PATCH /identity/v3/credentials/{credential_id}", Credential, 200)
            .body(r#"{"credential":{"blob":"another"}}"#),
        case("DELETE /identity/v3/credentials/{credential_id}", Credential, 204),
        case("GET /identity/v3/projects/{project_id}/tags", Nothing, 200)
            .with("project_id", "{project}")
            .also(&[Warden, Manager]),
        case("PUT /identity/v3/projects/{project_id}/tags", ProjectTagged, 200).body(r#"{"tags":["a","b"]}"#),
        case("DELETE /identity/v3/projects/{project_id}/tags", ProjectTagged, 204),
        case("GET /identity/v3/projects/{project_id}/tags/{tag}", Nothing, 204)
            .with("tag", "t")
            .with("project_id", "{project}")
            .also(&[Warden, Manager]),
        case("PUT /identity/v3/projects/{project_id}/tags/{tag}", ProjectTagged, 201).with("tag", "new"),
        case("DELETE /identity/v3/projects/{project_id}/tags/{tag}", ProjectTagged, 204).with("tag", "t"),
    ]
}

fn places() -> Vec<Case> {
    // Whoever is in a project of a domain may see the domain, and whoever reads a domain its projects.
    const INSIDE: &[super::Who] = &[Stranger, Reader, Member];
    vec![
        case("GET /identity/v3/domains", Nothing, 200),
        case("POST /identity/v3/domains", Nothing, 201).body(r#"{"domain":{"name":"{fresh}"}}"#),
        case("GET /identity/v3/domains/{domain_id}", Nothing, 200).with("domain_id", "{domain}").also(INSIDE),
        case("GET /identity/v3/domains/{domain_id}", Domain, 200).by(Admin),
        case("PATCH /identity/v3/domains/{domain_id}", Domain, 200).body(r#"{"domain":{"name":"{fresh}"}}"#),
        case("DELETE /identity/v3/domains/{domain_id}", DomainDisabled, 204),
        case("GET /identity/v3/projects", Project, 200),
        case("GET /identity/v3/projects", Project, 200).query("domain_id={domain}"),
        case("POST /identity/v3/projects", Nothing, 201).body(r#"{"project":{"name":"{fresh}"}}"#),
        case("POST /identity/v3/projects", Nothing, 201)
            .body(r#"{"project":{"name":"{fresh}","domain_id":"{domain}"}}"#),
        case("POST /identity/v3/projects", Project, 201).body(r#"{"project":{"name":"{fresh}","parent_id":"{id}"}}"#),
        case("GET /identity/v3/projects/{project_id}", Nothing, 200)
            .with("project_id", "{project}")
            .also(&[Warden, Manager]),
        case("PATCH /identity/v3/projects/{project_id}", Project, 200).body(r#"{"project":{"name":"{fresh}"}}"#),
        case("DELETE /identity/v3/projects/{project_id}", Project, 204),
        case("GET /identity/v3/users/{user_id}/projects", Person, 200),
        case("GET /identity/v3/users/{user_id}/projects", Person, 200).by(Himself),
    ]
}

fn users() -> Vec<Case> {
    const CREDENTIALS: &str = "GET /identity/v3/users/{user_id}/application_credentials";
    const ONE: &str = "GET /identity/v3/users/{user_id}/application_credentials/{application_credential_id}";
    vec![
        case("GET /identity/v3/users", Person, 200),
        case("GET /identity/v3/users", Person, 200).query("domain_id={domain}"),
        case("POST /identity/v3/users", Nothing, 201).body(r#"{"user":{"name":"{fresh}"}}"#),
        case("POST /identity/v3/users", Nothing, 201).body(r#"{"user":{"name":"{fresh}","domain_id":"{domain}"}}"#),
        case("GET /identity/v3/users/{user_id}", Person, 200),
        case("GET /identity/v3/users/{user_id}", Person, 200).by(Himself),
        case("PATCH /identity/v3/users/{user_id}", Person, 200).body(r#"{"user":{"description":"x"}}"#),
        case("DELETE /identity/v3/users/{user_id}", Person, 204),
        case("POST /identity/v3/users/{user_id}/password", Person, 204)
            .body(r#"{"user":{"original_password":"{password}","password":"another"}}"#)
            .by(Nobody),
        case(CREDENTIALS, ApplicationCredential, 200),
        case("POST /identity/v3/users/{user_id}/application_credentials", ApplicationCredential, 201)
            .body(r#"{"application_credential":{"name":"{fresh}"}}"#),
        case(ONE, ApplicationCredential, 200),
        case(
            "DELETE /identity/v3/users/{user_id}/application_credentials/{application_credential_id}",
            ApplicationCredential,
            204,
        ),
    ]
}

fn groups() -> Vec<Case> {
    vec![
        case("GET /identity/v3/groups", Group, 200),
        case("GET /identity/v3/groups", Group, 200).query("domain_id={domain}"),
        case("POST /identity/v3/groups", Nothing, 201).body(r#"{"group":{"name":"{fresh}"}}"#),
        case("POST /identity/v3/groups", Nothing, 201).body(r#"{"group":{"name":"{fresh}","domain_id":"{domain}"}}"#),
        case("GET /identity/v3/groups/{group_id}", Group, 200),
        case("PATCH /identity/v3/groups/{group_id}", Group, 200).body(r#"{"group":{"name":"{fresh}"}}"#),
        case("DELETE /identity/v3/groups/{group_id}", Group, 204),
        case("GET /identity/v3/groups/{group_id}/users", GroupWithPerson, 200),
        case("GET /identity/v3/groups/{group_id}/users/{user_id}", GroupWithPerson, 204),
        case("PUT /identity/v3/groups/{group_id}/users/{user_id}", GroupWithPerson, 204),
        case("DELETE /identity/v3/groups/{group_id}/users/{user_id}", GroupWithPerson, 204),
        case("GET /identity/v3/users/{user_id}/groups", GroupWithPerson, 200),
        case("GET /identity/v3/users/{user_id}/groups", Person, 200).by(Himself),
    ]
}

fn roles() -> Vec<Case> {
    vec![
        case("GET /identity/v3/roles", Role, 200),
        case("POST /identity/v3/roles", Nothing, 201).body(r#"{"role":{"name":"{fresh}"}}"#),
        case("GET /identity/v3/roles/{role_id}", Role, 200),
        case("PATCH /identity/v3/roles/{role_id}", Role, 200).body(r#"{"role":{"name":"{fresh}"}}"#),
        case("DELETE /identity/v3/roles/{role_id}", Role, 204),
        case("GET /identity/v3/roles/{role_id}/implies", Nothing, 200).with("role_id", "{member_role}"),
        case("GET /identity/v3/roles/{role_id}/implies/{implied_id}", Nothing, 200)
            .with("role_id", "{member_role}")
            .with("implied_id", "{reader_role}"),
        case("HEAD /identity/v3/roles/{role_id}/implies/{implied_id}", Nothing, 204)
            .with("role_id", "{member_role}")
            .with("implied_id", "{reader_role}"),
        case("PUT /identity/v3/roles/{role_id}/implies/{implied_id}", Role, 201).with("implied_id", "{reader_role}"),
        case("DELETE /identity/v3/roles/{role_id}/implies/{implied_id}", Implication, 204),
        case("GET /identity/v3/role_inferences", Nothing, 200),
    ]
}

macro_rules! assignments { ($($actor:literal on $target:literal at $path:literal $(by $who:ident)?;)*) => { vec![$(
    case(concat!("GET /identity/v3/", $path, "/roles"), Assigned($actor, $target, true), 200)$(.by($who))?,
    case(concat!("GET /identity/v3/", $path, "/roles/{role_id}"), Assigned($actor, $target, true), 204)$(.by($who))?,
    case(concat!("PUT /identity/v3/", $path, "/roles/{role_id}"), Assigned($actor, $target, false), 204)$(.by($who))?,
    case(concat!("DELETE /identity/v3/", $path, "/roles/{role_id}"), Assigned($actor, $target, true), 204)$(.by($who))?,
)*] }; }

macro_rules! inherited { ($($actor:literal on $target:literal at $path:literal;)*) => { vec![$(
    case(concat!("GET /identity/v3/OS-INHERIT/", $path, "/roles/inherited_to_projects"),
        Inherited($actor, $target, true), 200),
    case(concat!("GET /identity/v3/OS-INHERIT/", $path, "/roles/{role_id}/inherited_to_projects"),
        Inherited($actor, $target, true), 204),
    case(concat!("PUT /identity/v3/OS-INHERIT/", $path, "/roles/{role_id}/inherited_to_projects"),
        Inherited($actor, $target, false), 204),
    case(concat!("DELETE /identity/v3/OS-INHERIT/", $path, "/roles/{role_id}/inherited_to_projects"),
        Inherited($actor, $target, true), 204),
)*] }; }

fn assignments() -> Vec<Case> {
    let mut cases = inherited! {
        "user" on "project" at "projects/{project_id}/users/{user_id}";
        "group" on "project" at "projects/{project_id}/groups/{group_id}";
        "user" on "domain" at "domains/{domain_id}/users/{user_id}";
        "group" on "domain" at "domains/{domain_id}/groups/{group_id}";
    };
    cases.extend(assignments! {
        "user" on "project" at "projects/{project_id}/users/{user_id}";
        "group" on "project" at "projects/{project_id}/groups/{group_id}";
        "user" on "domain" at "domains/{domain_id}/users/{user_id}";
        "group" on "domain" at "domains/{domain_id}/groups/{group_id}";
        "user" on "system" at "system/users/{user_id}" by Admin;
        "group" on "system" at "system/groups/{group_id}" by Admin;
    });
    cases.push(case("GET /identity/v3/role_assignments", Assigned("user", "project", true), 200));
    cases.push(case("GET /identity/v3/role_assignments", Person, 200).query("user.id={id}").by(Himself));
    cases
}

#[tokio::test]
async fn users_and_projects_are_for_their_domains() {
    walk(cases()).await;
}

//! The volume API.

use super::things::Thing::Nothing;
use super::{Case, case, walk};

pub fn cases() -> Vec<Case> {
    vec![
        case("GET /volume", Nothing, 300).because("a choice of versions"),
        case("GET /volume/", Nothing, 300).because("a choice of versions"),
        case("GET /volume/v3", Nothing, 200),
        case("GET /volume/v3/", Nothing, 200),
        case("GET /volume/v3/extensions", Nothing, 200),
    ]
}

#[tokio::test]
async fn volumes_are_for_their_projects() {
    walk(cases()).await;
}

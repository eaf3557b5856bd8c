//! `cargo xtask`: build, test, check, bench and the guest image.

use anyhow::Result;
use clap::Parser;
use std::path::PathBuf;

/// The chores of the workspace.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
enum Chore {
    /// Starts a cloud on this machine, with a first server in it.
    Up,
    /// Stops it and leaves nothing behind.
    Down {
        /// Leaves the data under ARCUS_HOME.
        #[arg(long)]
        keep_data: bool,
    },
    /// Formatting, lints, house rules, documentation and dependencies.
    Check,
    /// `check`, then all tests; with a filter only the tests that match it, without `check`.
    Test {
        /// A part of the tests' names.
        filter: Option<String>,
    },
    /// All benchmarks, or one; prints a table and writes target/bench.json.
    Bench {
        /// The benchmark's name.
        name: Option<String>,
    },
    /// Tempest's API tests against a cloud with real guests, less conformance/exclusions.txt. CONCURRENCY (2) sets how
    /// many run at once.
    Conformance {
        /// A service, such as `compute`, or more of a test's name after `tempest.api.`.
        #[arg(long)]
        only: Option<String>,
        /// A file with test ids, one a line: exactly these run, and each must pass.
        #[arg(long, conflicts_with = "only")]
        list: Option<PathBuf>,
    },
    /// Drives every route of the API with hostile input.
    FuzzApi {
        /// How many spoilt requests for each policy case.
        #[arg(long, default_value_t = 200)]
        rounds: u64,
        /// Repeats an earlier run; each run prints its own.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// House rules that no lint knows.
    Tidy,
    /// Builds the guest image "arcus-tiny", if its inputs changed.
    Image,
    /// Builds a full Debian 12 guest image with cloud-init.
    ImageDebian,
    /// Installs the OpenStack clients that the tests use into target/clients.
    Clients,
    /// Installs the optional development tools.
    Tools,
}

fn main() -> Result<()> {
    match Chore::parse() {
        Chore::Up => xtask::cloud::up(),
        Chore::Down { keep_data } => xtask::cloud::down(keep_data),
        Chore::Check => xtask::chores::check(),
        Chore::Test { filter } => xtask::chores::test(filter.as_deref()),
        Chore::Bench { name } => xtask::bench::bench(name.as_deref()),
        Chore::Conformance { only, list } => {
            xtask::conformance::conformance(&xtask::conformance::Choice { only, list })
        }
        Chore::FuzzApi { rounds, seed } => xtask::chores::fuzz_api(rounds, seed),
        Chore::Tidy => xtask::chores::tidy(),
        Chore::Image => xtask::image::build().map(|_| ()),
        Chore::ImageDebian => xtask::image::build_debian().map(|_| ()),
        Chore::Clients => xtask::clients::install().map(|_| ()),
        Chore::Tools => xtask::chores::tools(),
    }
}

//! The policy table of the volume API.

crate::actions! {
    VERSIONS = "volume:versions:list", Public;
    EXTENSIONS = "volume:extensions:list", Authenticated;
    LIMITS = "volume:limits:show", ProjectReader;
}

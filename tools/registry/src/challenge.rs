//! `WWW-Authenticate` (RFC 9110, section 11.6.1): what a registry wants before it answers.

/// One challenge of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token from elsewhere.
    Bearer { realm: String, service: String, scope: String },
}

/// How many challenges of a header this program knows.
pub fn challenges(header: &str) -> usize {
    parse(header).len()
}

/// Every challenge of a header that this program knows, in its order.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header.trim_start();
    while !rest.is_empty() {
        let (word, after) = token(rest);
        if word.is_empty() {
            // Not a token: skip to the next part, so that nonsense cannot hold the parser up.
            rest = rest[rest.chars().next().map_or(0, char::len_utf8)..].trim_start();
            continue;
        }
        let after_space = after.trim_start();
        if let Some(value) = after_space.strip_prefix('=') {
            let (value, after) = self::value(value.trim_start());
            if let Some((_, parameters)) = found.last_mut() {
                parameters.push((word.to_ascii_lowercase(), value));
            }
            rest = after;
        } else {
            found.push((word.to_ascii_lowercase(), Vec::new()));
            rest = after_space;
        }
        rest = rest.trim_start_matches([' ', '\t', ',']);
    }
    found.into_iter().filter_map(known).collect()
}

fn known((scheme, parameters): (String, Vec<(String, String)>)) -> Option<Challenge> {
    let parameter = |name: &str| {
        let found = parameters.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" if !parameter("realm").is_empty() => Some(Challenge::Bearer {
            realm: parameter("realm"),
            service: parameter("service"),
            scope: parameter("scope"),
        }),
        _ => None,
    }
}

fn token(text: &str) -> (&str, &str) {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let end = text.bytes().position(|byte| !good(byte)).unwrap_or(text.len());
    text.split_at(end)
}

fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn registries_challenges_are_read() {
        let header =
            r#"Bearer realm="https://auth.test/token",service="r.test",scope="repository:a/b:pull,push""#;
        let bearer = Challenge::Bearer {
            realm: "https://auth.test/token".into(),
            service: "r.test".into(),
            scope: "repository:a/b:pull,push".into(),
        };
        assert_eq!(parse(header), std::slice::from_ref(&bearer));
        assert_eq!(parse(&format!("Negotiate abc==, Basic realm=x , {header}")), [Challenge::Basic, bearer]);
        assert_eq!(parse(r#"BASIC realm="a \"quoted\" one""#), [Challenge::Basic]);
    }

    #[test]
    fn nonsense_is_no_challenge() {
        for header in ["", "Bearer", "Bearer service=x", "=\"", "Bearer realm=", "\u{7f}ä,,,", "Digest a=b"]
        {
            assert_eq!(parse(header), [], "{header}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_fail(header in "[ -~ä\"\\\\,=]{0,200}") {
            parse(&header);
        }
    }
}

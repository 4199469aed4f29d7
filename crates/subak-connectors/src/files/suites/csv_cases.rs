//! The facts of public CSV suites (csv-spectrum, csv-test-data, CSV on the Web) and of RFC 4180 with values of our own.
//! A delimiter is a comma, a quote is `"`, the first record is the header, and no text stands for NULL.

/// One file and what comes out of it.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) input: &'static [u8],
    pub(super) expect: Expect,
}

/// What comes out of a file.
pub(super) enum Expect {
    /// Header and rows; `None` is NULL.
    Rows { header: &'static [&'static str], rows: &'static [&'static [Option<&'static str>]] },
    /// The first line of the record that is refused, from 1, and a text that the error or the reject contains.
    Bad { line: u64, about: &'static str },
}

/// Every case; the names are unique.
pub(super) const CASES: &[Case] = &[
    // Shape: csv-spectrum's simple files, line ends and the end of the file.
    Case {
        name: "records end with line feeds",
        input: b"id,city,size\n7,Oslo,40\n8,Bergen,\n",
        expect: Expect::Rows {
            header: &["id", "city", "size"],
            rows: &[&[Some("7"), Some("Oslo"), Some("40")], &[Some("8"), Some("Bergen"), None]],
        },
    },
    Case {
        name: "records end with carriage return and line feed",
        input: b"id,city\r\n7,Oslo\r\n8,Bergen\r\n",
        expect: Expect::Rows { header: &["id", "city"], rows: &[&[Some("7"), Some("Oslo")], &[Some("8"), Some("Bergen")]] },
    },
    Case {
        name: "records end with carriage returns",
        input: b"id,city\r7,Oslo\r8,Bergen\r",
        expect: Expect::Rows { header: &["id", "city"], rows: &[&[Some("7"), Some("Oslo")], &[Some("8"), Some("Bergen")]] },
    },
    Case {
        name: "records end in three ways in one file",
        input: "id,city\r\n7,Oslo\n8,Bergen\r9,Bodø\r\n".as_bytes(),
        expect: Expect::Rows {
            header: &["id", "city"],
            rows: &[&[Some("7"), Some("Oslo")], &[Some("8"), Some("Bergen")], &[Some("9"), Some("Bodø")]],
        },
    },
    Case {
        name: "a doubled carriage return makes an empty line",
        input: b"id,city\r\r\n7,Oslo\r\r\n",
        expect: Expect::Rows { header: &["id", "city"], rows: &[&[Some("7"), Some("Oslo")]] },
    },
    Case {
        name: "the last record has no line end",
        input: b"id,city\n7,Oslo\n8,Bergen",
        expect: Expect::Rows { header: &["id", "city"], rows: &[&[Some("7"), Some("Oslo")], &[Some("8"), Some("Bergen")]] },
    },
    Case {
        name: "the file ends behind a closing quote",
        input: b"id,city\n7,\"Oslo\"",
        expect: Expect::Rows { header: &["id", "city"], rows: &[&[Some("7"), Some("Oslo")]] },
    },
    Case {
        name: "the file ends behind a delimiter",
        input: b"id,city\n7,",
        expect: Expect::Rows { header: &["id", "city"], rows: &[&[Some("7"), None]] },
    },
    Case {
        name: "the file ends behind a lone carriage return",
        input: b"id,city\r\n7,Oslo\r",
        expect: Expect::Rows { header: &["id", "city"], rows: &[&[Some("7"), Some("Oslo")]] },
    },
    Case {
        name: "empty lines before the header, between records and at the end",
        input: b"\n\r\nid,city\n\n7,Oslo\n\r\n\r8,Bergen\n\n\n",
        expect: Expect::Rows { header: &["id", "city"], rows: &[&[Some("7"), Some("Oslo")], &[Some("8"), Some("Bergen")]] },
    },
    Case { name: "an empty file has no columns", input: b"", expect: Expect::Rows { header: &[], rows: &[] } },
    Case { name: "a file of empty lines has no columns", input: b"\n\r\n\n", expect: Expect::Rows { header: &[], rows: &[] } },
    Case {
        name: "a header alone keeps its columns",
        input: b"id,city\n",
        expect: Expect::Rows { header: &["id", "city"], rows: &[] },
    },
    Case {
        name: "a header without a line end keeps its columns",
        input: b"id,city",
        expect: Expect::Rows { header: &["id", "city"], rows: &[] },
    },
    Case {
        name: "one column",
        input: b"city\nOslo\n\"\"\n\nBergen\n",
        expect: Expect::Rows { header: &["city"], rows: &[&[Some("Oslo")], &[Some("")], &[Some("Bergen")]] },
    },
    Case {
        name: "only these bytes end a line",
        input: "id,note\n1,a\x0bb\x0cc\x1cd\u{85}e\u{2028}f\n".as_bytes(),
        expect: Expect::Rows { header: &["id", "note"], rows: &[&[Some("1"), Some("a\x0bb\x0cc\x1cd\u{85}e\u{2028}f")]] },
    },
    // Quotes: csv-spectrum, RFC 4180.
    Case {
        name: "a delimiter inside quotes",
        input: b"name,street,town\nAda,4 Low Rd,\"Ely, Cambs\"\n",
        expect: Expect::Rows {
            header: &["name", "street", "town"],
            rows: &[&[Some("Ada"), Some("4 Low Rd"), Some("Ely, Cambs")]],
        },
    },
    Case {
        name: "nothing is NULL and quoted nothing is empty",
        input: b"p,q,r\n9,\"\",\n,5,\"\"\n",
        expect: Expect::Rows { header: &["p", "q", "r"], rows: &[&[Some("9"), Some(""), None], &[None, Some("5"), Some("")]] },
    },
    Case {
        name: "quoted nothing before carriage return and line feed",
        input: b"p,q,r\r\n9,\"\",\"\"\r\n4,5,\r\n",
        expect: Expect::Rows {
            header: &["p", "q", "r"],
            rows: &[&[Some("9"), Some(""), Some("")], &[Some("4"), Some("5"), None]],
        },
    },
    Case {
        name: "doubled quotes",
        input: b"id,said\n1,\"she said \"\"no\"\" twice\"\n2,plain\n",
        expect: Expect::Rows {
            header: &["id", "said"],
            rows: &[&[Some("1"), Some(r#"she said "no" twice"#)], &[Some("2"), Some("plain")]],
        },
    },
    Case {
        name: "doubled quotes at both ends",
        input: b"id,said\n1,\"\"\"no\"\"\"\n2,\"\"\"\"\n",
        expect: Expect::Rows { header: &["id", "said"], rows: &[&[Some("1"), Some(r#""no""#)], &[Some("2"), Some(r#"""#)]] },
    },
    Case {
        name: "JSON inside quotes",
        input: b"id,shape\n5,\"{\"\"kind\"\": \"\"Line\"\", \"\"at\"\": [3.50, -1]}\"\n",
        expect: Expect::Rows { header: &["id", "shape"], rows: &[&[Some("5"), Some(r#"{"kind": "Line", "at": [3.50, -1]}"#)]] },
    },
    Case {
        name: "quotes inside a field that does not begin with one",
        input: "place,at\nFalun,60°36'24.5\"N 15°38'01.0\"E\n".as_bytes(),
        expect: Expect::Rows { header: &["place", "at"], rows: &[&[Some("Falun"), Some(r#"60°36'24.5"N 15°38'01.0"E"#)]] },
    },
    Case {
        name: "a line feed inside quotes",
        input: b"p,q\n\"one\ntwo\",3\n4,5\n",
        expect: Expect::Rows { header: &["p", "q"], rows: &[&[Some("one\ntwo"), Some("3")], &[Some("4"), Some("5")]] },
    },
    Case {
        name: "carriage return and line feed inside quotes stay as they are",
        input: b"p,q\r\n\"one\r\ntwo\",3\r\n4,5\r\n",
        expect: Expect::Rows { header: &["p", "q"], rows: &[&[Some("one\r\ntwo"), Some("3")], &[Some("4"), Some("5")]] },
    },
    Case {
        name: "a carriage return inside quotes stays as it is",
        input: b"p,q\r\"one\rtwo\",3\r4,5\r",
        expect: Expect::Rows { header: &["p", "q"], rows: &[&[Some("one\rtwo"), Some("3")], &[Some("4"), Some("5")]] },
    },
    Case {
        name: "doubled quotes and line feeds together",
        input: b"p,q\n1,\"oh \n\"\"dear\"\" \nme\"\n2,x\n",
        expect: Expect::Rows { header: &["p", "q"], rows: &[&[Some("1"), Some("oh \n\"dear\" \nme")], &[Some("2"), Some("x")]] },
    },
    Case {
        name: "blank around a field belongs to it",
        input: b"p,q\n 1 ,\" 2 \"\n\t3,4\t\n",
        expect: Expect::Rows { header: &["p", "q"], rows: &[&[Some(" 1 "), Some(" 2 ")], &[Some("\t3"), Some("4\t")]] },
    },
    Case {
        name: "a quote behind a blank is text",
        input: b"p,q\n1, \"two\"\n",
        expect: Expect::Rows { header: &["p", "q"], rows: &[&[Some("1"), Some(r#" "two""#)]] },
    },
    Case {
        name: "a quote behind a blank protects no delimiter",
        input: b"p,q\n1, \"two, three\"\n",
        expect: Expect::Bad { line: 2, about: "fields" },
    },
    Case {
        name: "a backslash protects no quote",
        input: b"p,q\n1,\"two \\\" three\"\n",
        expect: Expect::Bad { line: 2, about: "quote" },
    },
    Case {
        name: "a backslash before the closing quote is text",
        input: b"p,q\n1,\"D:\\data\\\"\n2,x\n",
        expect: Expect::Rows { header: &["p", "q"], rows: &[&[Some("1"), Some(r"D:\data\")], &[Some("2"), Some("x")]] },
    },
    Case {
        name: "an apostrophe is no quote",
        input: b"p,q\n'1,2'\n",
        expect: Expect::Rows { header: &["p", "q"], rows: &[&[Some("'1"), Some("2'")]] },
    },
    Case {
        name: "text behind the closing quote",
        input: b"p,q\n1,2\n3,\"four\"teen\n",
        expect: Expect::Bad { line: 3, about: "quote" },
    },
    Case { name: "a blank behind the closing quote", input: b"p,q\n\"1\" ,2\n", expect: Expect::Bad { line: 2, about: "quote" } },
    Case {
        name: "text behind the closing quote of a record that spans lines",
        input: b"p,q\n1,\"two\nthree\"x\n",
        expect: Expect::Bad { line: 2, about: "quote" },
    },
    Case {
        name: "a quote that is never closed",
        input: b"p,q\n1,2\n3,\"four\n",
        expect: Expect::Bad { line: 3, about: "quote" },
    },
    Case {
        name: "a quote that is never closed swallows the records behind it",
        input: b"p,q\n\"1,2\n3,4\n5,6\n",
        expect: Expect::Bad { line: 2, about: "quote" },
    },
    Case { name: "one quote is the last byte", input: b"p,q\n1,\"", expect: Expect::Bad { line: 2, about: "quote" } },
    Case {
        name: "three quotes open a field and do not close it",
        input: b"p,q\n1,\"\"\"\n",
        expect: Expect::Bad { line: 2, about: "quote" },
    },
    Case {
        name: "a quote that is never closed in the header",
        input: b"\"p,q\n1,2\n",
        expect: Expect::Bad { line: 1, about: "quote" },
    },
    // Records with too few or too many fields.
    Case { name: "a short record", input: b"p,q,r\n1,2,3\n4,5\n", expect: Expect::Bad { line: 3, about: "fields" } },
    Case { name: "a long record", input: b"p,q\n1,2\n3,4,5\n", expect: Expect::Bad { line: 3, about: "fields" } },
    Case { name: "a delimiter too many at the end", input: b"p,q\n1,2,\n", expect: Expect::Bad { line: 2, about: "fields" } },
    Case {
        name: "a delimiter too many at every end",
        input: b"p,q,\n1,2,\n3,4,\n",
        expect: Expect::Rows {
            header: &["p", "q", "column_3"],
            rows: &[&[Some("1"), Some("2"), None], &[Some("3"), Some("4"), None]],
        },
    },
    Case {
        name: "only delimiters",
        input: b"p,q,r\n,,\n1,,\n",
        expect: Expect::Rows { header: &["p", "q", "r"], rows: &[&[None, None, None], &[Some("1"), None, None]] },
    },
    Case { name: "a line of blanks is a record", input: b"p,q\n1,2\n  \n", expect: Expect::Bad { line: 3, about: "fields" } },
    Case {
        name: "a line of blanks is a field",
        input: b"p\n  \n",
        expect: Expect::Rows { header: &["p"], rows: &[&[Some("  ")]] },
    },
    Case { name: "a quoted nothing is a record", input: b"p,q\n1,2\n\"\"\n", expect: Expect::Bad { line: 3, about: "fields" } },
    Case {
        name: "lines count through quoted line feeds",
        input: b"p,q\n\"1\n\n1\",2\n3\n",
        expect: Expect::Bad { line: 5, about: "fields" },
    },
    Case {
        name: "lines count through quoted carriage returns",
        input: b"p,q\r\"1\r1\",2\r3\r",
        expect: Expect::Bad { line: 4, about: "fields" },
    },
    Case {
        name: "lines count through quoted carriage returns and line feeds",
        input: b"p,q\r\n\"1\r\n1\",2\r\n3\r\n",
        expect: Expect::Bad { line: 4, about: "fields" },
    },
    Case {
        name: "lines count through empty lines",
        input: b"\np,q\r\n\r\n1,2\n\n\n3\n",
        expect: Expect::Bad { line: 7, about: "fields" },
    },
    Case {
        name: "a semicolon is not found out to be the delimiter",
        input: b"p;q\n1;2\n1,5;2\n",
        expect: Expect::Bad { line: 3, about: "fields" },
    },
    Case {
        name: "a number sign begins no comment",
        input: b"p,q\n# 1,2\n#3,4\n",
        expect: Expect::Rows { header: &["p", "q"], rows: &[&[Some("# 1"), Some("2")], &[Some("#3"), Some("4")]] },
    },
    Case { name: "the end mark of DOS is a record", input: b"p,q\n1,2\n\x1a", expect: Expect::Bad { line: 3, about: "fields" } },
    // Headers.
    Case {
        name: "names that come again",
        input: b"a,b,a,a\n1,2,3,4\n",
        expect: Expect::Rows { header: &["a", "b", "a_2", "a_3"], rows: &[&[Some("1"), Some("2"), Some("3"), Some("4")]] },
    },
    Case {
        name: "a name that comes again meets a name with a number",
        input: b"a,a,a_2\n1,2,3\n",
        expect: Expect::Rows { header: &["a", "a_2", "a_2_2"], rows: &[&[Some("1"), Some("2"), Some("3")]] },
    },
    Case {
        name: "names that differ in case stay",
        input: b"Id,id,ID\n1,2,3\n",
        expect: Expect::Rows { header: &["Id", "id", "ID"], rows: &[&[Some("1"), Some("2"), Some("3")]] },
    },
    Case {
        name: "names without text",
        input: b"a,,\"\",  \n1,2,3,4\n",
        expect: Expect::Rows {
            header: &["a", "column_2", "column_3", "column_4"],
            rows: &[&[Some("1"), Some("2"), Some("3"), Some("4")]],
        },
    },
    Case {
        name: "no name has text",
        input: b",,\n1,2,3\n",
        expect: Expect::Rows { header: &["column_1", "column_2", "column_3"], rows: &[&[Some("1"), Some("2"), Some("3")]] },
    },
    Case {
        name: "a name without text meets its own number",
        input: b"column_2,\n1,2\n",
        expect: Expect::Rows { header: &["column_2", "column_2_2"], rows: &[&[Some("1"), Some("2")]] },
    },
    Case {
        name: "blank around names goes",
        input: b" a ,\" a\",b c\n1,2,3\n",
        expect: Expect::Rows { header: &["a", "a_2", "b c"], rows: &[&[Some("1"), Some("2"), Some("3")]] },
    },
    Case {
        name: "names of digits",
        input: b"2023,2024\n1,2\n",
        expect: Expect::Rows { header: &["2023", "2024"], rows: &[&[Some("1"), Some("2")]] },
    },
    Case {
        name: "names with a delimiter, a quote and a line feed",
        input: b"\"a, b\",\"c \"\"d\"\"\",\"e\nf\"\n1,2,3\n4\n",
        expect: Expect::Bad { line: 4, about: "fields" },
    },
    Case {
        name: "quoted names",
        input: b"\"a, b\",\"c \"\"d\"\"\",\"e\nf\"\n1,2,3\n",
        expect: Expect::Rows { header: &["a, b", r#"c "d""#, "e\nf"], rows: &[&[Some("1"), Some("2"), Some("3")]] },
    },
    // Bytes and encodings.
    Case {
        name: "text beyond ASCII",
        input: "id,word\n1,naïve\n2,数据\n3,🦉\n".as_bytes(),
        expect: Expect::Rows {
            header: &["id", "word"],
            rows: &[&[Some("1"), Some("naïve")], &[Some("2"), Some("数据")], &[Some("3"), Some("🦉")]],
        },
    },
    Case {
        name: "a byte order mark",
        input: "\u{feff}id,city\n7,Oslo\n".as_bytes(),
        expect: Expect::Rows { header: &["id", "city"], rows: &[&[Some("7"), Some("Oslo")]] },
    },
    Case {
        name: "a byte order mark before a quoted name",
        input: "\u{feff}\"id, no\",city\n7,Oslo\n".as_bytes(),
        expect: Expect::Rows { header: &["id, no", "city"], rows: &[&[Some("7"), Some("Oslo")]] },
    },
    Case {
        name: "two byte order marks",
        input: "\u{feff}\u{feff}id,city\n7,Oslo\n".as_bytes(),
        expect: Expect::Rows { header: &["id", "city"], rows: &[&[Some("7"), Some("Oslo")]] },
    },
    Case { name: "a byte order mark alone", input: "\u{feff}".as_bytes(), expect: Expect::Rows { header: &[], rows: &[] } },
    Case {
        name: "UTF-16, little end first",
        input: b"\xff\xfei\0d\0,\0v\0\r\0\n\x001\0,\0\xac \r\0\n\0",
        expect: Expect::Rows { header: &["id", "v"], rows: &[&[Some("1"), Some("€")]] },
    },
    Case {
        name: "UTF-16, big end first",
        input: b"\xfe\xff\0i\0d\0,\0v\0\n\x001\0, \xac\0\n",
        expect: Expect::Rows { header: &["id", "v"], rows: &[&[Some("1"), Some("€")]] },
    },
    Case {
        name: "a NUL is text",
        input: b"id,v\n1,a\0b\n2,\0\n\0,\"\0\"\n",
        expect: Expect::Rows {
            header: &["id", "v"],
            rows: &[&[Some("1"), Some("a\0b")], &[Some("2"), Some("\0")], &[Some("\0"), Some("\0")]],
        },
    },
    Case {
        name: "Latin-1 is no UTF-8",
        input: b"id,city\n1,Oslo\n2,Malm\xf6\n",
        expect: Expect::Bad { line: 3, about: "UTF-8" },
    },
    Case { name: "a character that is cut off", input: b"id,city\n1,Malm\xc3", expect: Expect::Bad { line: 2, about: "UTF-8" } },
    Case { name: "an overlong character", input: b"id,v\n1,\xc1\x81\n", expect: Expect::Bad { line: 2, about: "UTF-8" } },
    Case {
        name: "a surrogate as bytes",
        input: b"id,v\n\"1\n1\",2\n3,\xed\xb0\x80\n",
        expect: Expect::Bad { line: 4, about: "UTF-8" },
    },
    Case { name: "a name that is no UTF-8", input: b"id,gr\xf6\xdfe\n1,2\n", expect: Expect::Bad { line: 1, about: "UTF-8" } },
    // Values stay as they are written.
    Case {
        name: "numbers and words keep their spelling",
        input: b"v,w\n00420,7e3\n\"12,345.60\",-\nnan,Yes\n+5,.5\n",
        expect: Expect::Rows {
            header: &["v", "w"],
            rows: &[
                &[Some("00420"), Some("7e3")],
                &[Some("12,345.60"), Some("-")],
                &[Some("nan"), Some("Yes")],
                &[Some("+5"), Some(".5")],
            ],
        },
    },
    Case {
        name: "words for nothing are text without an option",
        input: b"v,w\nNULL,\"NULL\"\nnull,\\N\nN/A,\n",
        expect: Expect::Rows {
            header: &["v", "w"],
            rows: &[&[Some("NULL"), Some("NULL")], &[Some("null"), Some(r"\N")], &[Some("N/A"), None]],
        },
    },
    Case {
        name: "dates and formulas are text",
        input: b"v,w\n03/04/2025,24:00\n=1+1,@x\n",
        expect: Expect::Rows { header: &["v", "w"], rows: &[&[Some("03/04/2025"), Some("24:00")], &[Some("=1+1"), Some("@x")]] },
    },
];

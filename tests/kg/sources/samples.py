r"""Small files of each format, written from the published descriptions, odd lines included."""

import json
from pathlib import Path

W = "http://www.wikidata.org"
LABEL = "<http://www.w3.org/2000/01/rdf-schema#label>"
PREF = "<http://www.w3.org/2004/02/skos/core#prefLabel>"
ALT = "<http://www.w3.org/2004/02/skos/core#altLabel>"
XSD = "http://www.w3.org/2001/XMLSchema#"
ONTOLOGY = "http://dbpedia.org/ontology"
ZH = "http://zh.dbpedia.org/resource"


def item(name: str) -> str:
    return f"<{W}/entity/{name}>"


def direct(head: str, relation: str, tail: str) -> str:
    end = item(tail) if tail[0] == "Q" else tail
    return f"{item(head)} <{W}/prop/direct/{relation}> {end} ."


WIKIDATA_NAMES = [
    # 熊猫 and 苹果 in several variants, names shared by two items, an escape beyond the BMP
    ("Q33602", {"zh": "大熊猫", "zh-hant": "大貓熊", "en": "giant panda"}, ["熊猫", "貓熊"]),
    ("Q89", {"zh-hans": "苹果", "zh-tw": "蘋果", "en": "apple"}, ["苹果果实"]),
    ("Q312", {"zh-cn": "苹果", "en": "Apple"}, ["苹果公司"]),
    ("Q3314483", {"zh": "水果", "en": "fruit"}, []),
    ("Q4830453", {"zh-hk": "企業", "en": "business"}, []),
    ("Q7377", {"zh": "哺乳动物"}, []),
    ("Q5000", {"en": "nameless in Chinese"}, []),
    ("P31", {"zh": "隶属于", "en": "instance of"}, ["是一个"]),
    ("P171", {"zh": "父级分类单元"}, []),
]
WIKIDATA_CLAIMS = [
    ("Q33602", "P31", "Q7377"),
    ("Q89", "P31", "Q3314483"),
    ("Q89", "P171", "Q3314483"),
    ("Q312", "P31", "Q4830453"),
    ("Q89", "P31", "Q5000"),  # its end has no Chinese name
    ("Q3314483", "P1889", "Q4830453"),  # its relation has no label
]
ODD_WIKIDATA = [
    "# a comment",
    "",
    "   ",
    direct("Q89", "P569", f'"1990-01-01T00:00:00Z"^^<{XSD}dateTime>'),
    direct("Q89", "P1082", f'"+1"^^<{XSD}decimal>') + " # a comment after the dot",
    direct("Q89", "P19", "_:genid1"),
    direct("Q89", "P2", f"<{W}/entity/P31>"),
    f'{item("Q89")} <http://schema.org/description> "果实"@zh .',
    f'{item("Q3314483")} {ALT} "\\U0001F34E\\u679C\\t\\"x\\""@zh-Hans-CN .',
    f"<https://zh.wikipedia.org/wiki/%E8%8B%B9%E6%9E%9C> <http://schema.org/about> {item('Q89')}.",
]
BAD_WIKIDATA = {  # line -> a part of the reason
    f'{item("Q89")} {LABEL} "no dot"@zh': "no dot",
    f'<{W}/entity/Q 89> {LABEL} "a space"@zh .': "IRI contains a space",
    f'{item("Q89")} {LABEL} "bad escape \\x"@zh .': "invalid escape",
    f'{item("Q89")} {LABEL} "lone surrogate \\uD83D"@zh .': "invalid escape",
    f'{item("Q89")} "literal"@zh {LABEL} .': "predicate is not <IRI>",
    f'"literal" {LABEL} "a"@zh .': "subject is neither",
    f"{item('Q89')} {LABEL} bare .": "object is neither",
    f'{item("Q89")} {LABEL} "a"@zh- .': "invalid language tag",
    f'{item("Q89")} {LABEL} "a"@zh . b': "text after the dot",
    f'{item("Q89")} {LABEL} "a\0"@zh .': "NUL",
}


def wikidata() -> list[str]:
    lines = ['<http://wikiba.se/ontology#Dump> <http://schema.org/softwareVersion> "1.0.0" .']
    for name, labels, aliases in WIKIDATA_NAMES:
        for tag, text in labels.items():
            lines += [f'{item(name)} {p} "{text}"@{tag} .' for p in (LABEL, PREF)]
            lines += [f'{item(name)} <http://schema.org/name> "{text}"@{tag} .']
        lines += [f'{item(name)} {ALT} "{alias}"@zh .' for alias in aliases]
        lines += [direct(*claim) for claim in WIKIDATA_CLAIMS if claim[0] == name]
    return lines + ODD_WIKIDATA


def write_wikidata(path: Path) -> Path:
    """Write the dump with bad lines, one line not UTF-8, CRLF ends, and a truncated last line."""
    raw = "\r\n".join([*wikidata(), *BAD_WIKIDATA]).encode() + b"\r\n"
    raw += f'{item("Q89")} {LABEL} "'.encode() + b'\xe8\x8b"@zh .\n'
    path.write_bytes(raw + f'{item("Q89")} {LABEL} "cut'.encode())
    return path


def _claim(tail: str | None, relation: str, rank: str = "normal") -> dict:
    snak = {"snaktype": "value" if tail else "somevalue", "property": relation}
    if tail:
        value = {"entity-type": "item", "numeric-id": int(tail[1:]), "id": tail}
        snak["datavalue"] = {"value": value, "type": "wikibase-entityid"}
    return {"mainsnak": snak, "type": "statement", "rank": rank}


def write_wikidata_json(path: Path) -> Path:
    entities = []
    for name, labels, aliases in WIKIDATA_NAMES:
        claims: dict[str, list] = {}
        for head, relation, tail in WIKIDATA_CLAIMS:
            if head == name:
                claims.setdefault(relation, []).append(_claim(tail, relation))
        if name == "Q89":
            claims["P19"] = [_claim(None, "P19")]
            claims["P31"].append(_claim("Q4830453", "P31", "deprecated"))
            date = {"snaktype": "value", "property": "P569",
                    "datavalue": {"value": {"time": "+1990"}, "type": "time"}}  # fmt: skip
            claims["P569"] = [{"mainsnak": date, "type": "statement", "rank": "normal"}]
        if name == "Q312":
            claims["P31"] = [_claim("Q3314483", "P31"), _claim("Q4830453", "P31", "preferred")]
        entities.append({
            "type": "item" if name[0] == "Q" else "property",
            "id": name,
            "labels": {tag: {"language": tag, "value": text} for tag, text in labels.items()},
            "aliases": {"zh": [{"language": "zh", "value": a} for a in aliases]} if aliases else [],
            "claims": claims or [],
        })  # fmt: skip
    lines = [json.dumps(entity, ensure_ascii=False) for entity in entities]
    path.write_text(
        "[\n" + ",\n".join([*lines, '{"type":"item","id":"Q1","labels":{"zh"', '["array"]'])
        + "\n]\n", encoding="utf-8",
    )  # fmt: skip
    return path


def write_dbpedia(folder: Path) -> list[Path]:
    """Write the files of a Chinese DBpedia: objects, labels, redirects, disambiguations."""
    files = {
        "mappingbased-objects_lang=zh.ttl": [
            "# started 2022-12-01T00:00:00Z",
            f"<{ZH}/刘德华> <{ONTOLOGY}/birthPlace> <{ZH}/香港> .",
            f"<{ZH}/%E6%9D%8E%E7%99%BD> <{ONTOLOGY}/birthPlace> <{ZH}/\\u788E\\u53F6> .",
            f"<{ZH}/忘情水_(歌曲)> <{ONTOLOGY}/artist> <{ZH}/华仔> .",
            f"<{ZH}/AC/DC> <{ONTOLOGY}/hometown> <{ZH}/香港> .",
            f"<{ZH}/苹果_(消歧义)> <{ONTOLOGY}/related> <{ZH}/香港> .",
            f'<{ZH}/刘德华> <{ONTOLOGY}/height> "1.74"^^<{XSD}double> .',
            f'<{ZH}/刘德华> <{ONTOLOGY}/title> "歌手"@zh .',
            f"<{ZH}/刘德华> <http://xmlns.com/foaf/0.1/homepage> <http://example.org/> .",
            f"<{ZH}/刘德华> <{ONTOLOGY}/spouse> <{ZH}/a b> .",
            "# completed 2022-12-01T00:00:00Z",
        ],
        "labels_lang=zh.ttl": [
            f'<{ZH}/香港> {LABEL} "香港"@zh .',
            f'<{ZH}/忘情水_(歌曲)> {LABEL} "忘情水"@zh .',
            f'<{ONTOLOGY}/birthPlace> {LABEL} "出生地"@zh .',
        ],
        "redirects_lang=zh.ttl": [
            f"<{ZH}/华仔> <{ONTOLOGY}/wikiPageRedirects> <{ZH}/Andy_Lau> .",
            f"<{ZH}/Andy_Lau> <{ONTOLOGY}/wikiPageRedirects> <{ZH}/刘德华> .",
        ],
        "disambiguations_lang=zh.ttl": [
            f"<{ZH}/苹果_(消歧义)> <{ONTOLOGY}/wikiPageDisambiguates> <{ZH}/苹果> .",
        ],
    }
    paths = []
    for name, lines in files.items():
        path = folder / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        paths.append(path)
    return paths


def _assertion(relation: str, start: str, end: str, weight: float = 1.0) -> str:
    data = json.dumps({"dataset": "/d/x", "weight": weight})
    return f"/a/[{relation}/,{start}/,{end}/]\t{relation}\t{start}\t{end}\t{data}"


def write_conceptnet(path: Path) -> Path:
    lines = [
        _assertion("/r/IsA", "/c/zh/熊猫/n", "/c/zh/动物", 2.0),
        _assertion("/r/IsA", "/c/zh/熊猫/n/wn/animal", "/c/zh/哺乳_动物", 1.0),
        _assertion("/r/AtLocation", "/c/zh/熊猫", "/c/zh/竹林", 0.5),
        _assertion("/r/Synonym", "/c/zh/熊猫", "/c/en/panda"),
        _assertion("/r/ExternalURL", "/c/zh/熊猫", "http://zh.dbpedia.org/resource/熊猫"),
        _assertion("/r/dbpedia/genre", "/c/zh/摇滚", "/c/zh/音乐"),
        "/a/[/r/IsA/]\t/r/IsA\t/c/zh/缺",
        "/a/[/r/IsA/]\t/r/IsA\t/c/zh/缺\t/c/zh/重\t{broken",
        "/a/[/r/IsA/]\t/r/IsA\tx\t/c/zh/重\t{}",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_wikidata5m(folder: Path) -> list[Path]:
    files = {
        "wikidata5m_all_triplet.txt": ["Q42\tP31\tQ5", "Q1\tP361\tQ2", "Q42\tP31", "Q42\tP31\tQ7"],
        "wikidata5m_entity.txt": [
            "Q42\tDouglas Adams\tDouglas Noel Adams",
            "Q5\thuman\tpeople",
            "Q1\tuniverse",
            "Q2\tEarth\tThe Blue Planet",
            "no id\tx",
            "Q9",
        ],
        "wikidata5m_relation.txt": ["P31\tinstance of\tis a", "P361\tpart of"],
    }
    paths = []
    for name, lines in files.items():
        path = folder / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        paths.append(path)
    return paths


def write_english_wordnet(path: Path) -> Path:
    """Write WN-LMF with relations: animal > mammal > carnivore (unnamed in Chinese) > dog."""
    synsets = [
        ("00015388-n", "i35562", [("hyponym", "01861778-n")]),
        ("01861778-n", "i46000", []),
        ("02075296-n", "i46300", [("hypernym", "01861778-n")]),
        ("02084071-n", "i46360", [("hypernym", "02075296-n"), ("mero_part", "02158846-n")]),
        ("02158846-n", "i46500", [("domain_topic", "00015388-n")]),
        ("00217728-a", "i100", [("similar", "00218440-s")]),
        ("00218440-s", "", []),
    ]
    body = "".join(
        f'<Synset id="omw-en-{name}" ili="{ili}" partOfSpeech="{name[-1]}">'
        + "".join(f'<SynsetRelation relType="{r}" target="omw-en-{t}"/>' for r, t in relations)
        + "</Synset>"
        for name, ili, relations in synsets
    )
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<!DOCTYPE LexicalResource SYSTEM "http://globalwordnet.github.io/schemas/WN-LMF-1.1.dtd">\n'
        '<LexicalResource xmlns:dc="https://globalwordnet.github.io/schemas/dc/">\n'
        '<Lexicon id="omw-en" label="OMW English" language="en" version="1.4" '
        'license="https://wordnet.princeton.edu/license-and-commercial-use" email="a@b">'
        '<LexicalEntry id="e1"><Lemma writtenForm="dog" partOfSpeech="n"/>'
        '<Sense id="s1" synset="omw-en-02084071-n"/></LexicalEntry>'
        f"{body}</Lexicon></LexicalResource>\n",
        encoding="utf-8",
    )
    return path


LEMMAS = {
    "00015388-n": ["动物"], "01861778-n": ["哺乳动物", "哺乳类"], "02084071-n": ["狗", "犬"],
    "02158846-n": ["爪"], "00217728-a": ["美丽+的"], "00218440-a": ["好看+的"],
}  # fmt: skip


def write_omw_tab(path: Path) -> Path:
    lines = ["# Chinese Open Wordnet\tcmn\thttp://compling.hss.ntu.edu.sg/cow/\twordnet"]
    lines += [f"{s}\tcmn:lemma\t{word}" for s, words in LEMMAS.items() for word in words]
    lines += ["02084071-n\tcmn:def\t0\t一种动物", "02084071-n\teng:lemma\tdog", "broken line",
              "x\tcmn:lemma\t坏", "00015388-n\tcmn:lemma\tGAP!"]  # fmt: skip
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_chinese_lmf(path: Path) -> Path:
    """Write the same lemmas as WN-LMF, joined with the English synsets by ILI."""
    ili = {"00015388-n": "i35562", "01861778-n": "i46000", "02084071-n": "i46360",
           "02158846-n": "i46500", "00217728-a": "i100"}  # fmt: skip
    entries = "".join(
        f'<LexicalEntry id="w{n}"><Lemma writtenForm="{word}" partOfSpeech="n"/>'
        f'<Sense id="s{n}" synset="cow-{synset}"/></LexicalEntry>'
        for n, (synset, word) in enumerate((s, w) for s, words in LEMMAS.items() for w in words)
    )
    synsets = "".join(f'<Synset id="cow-{s}" ili="{i}" partOfSpeech="n"/>' for s, i in ili.items())
    path.write_text(
        '<?xml version="1.0" encoding="UTF-8"?>\n<LexicalResource>\n'
        f'<Lexicon id="omw-cmn" language="cmn-Hans">{entries}{synsets}</Lexicon>'
        "</LexicalResource>\n",
        encoding="utf-8",
    )
    return path


def write_ownthink(path: Path) -> Path:
    lines = [
        "实体,属性,值",
        "大山[某协会会长],职业,主持人",
        "大山[某协会会长],国籍,加拿大",
        '大山【歌手】,描述,"名字里有""引号"",也有逗号"',
        "大山〔山名〕,位于,加拿大",
        "刘德华（演员）,职业,主持人",
        "词条,标签,文化",
        "只有,两列",
        "空,,值",
        '坏,"引号,值',
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_ntriples(path: Path) -> Path:
    lines = [
        "<http://example.org/plants#rose> <http://example.org/v#grows_in> "
        "<http://example.org/places/garden> .",
        f'<http://example.org/plants#rose> {LABEL} "玫瑰"@zh .',
        f'<http://example.org/plants#rose> {ALT} "玫瑰花"@zh .',
        f'<http://example.org/plants#rose> {LABEL} "Rose"@de .',
        f'<http://example.org/places/garden> {LABEL} "Garten"@de .',
        "<http://example.org/plants#tulip> <http://example.org/v#grows_in> "
        "<http://example.org/places/%E8%8A%B1%E5%9B%AD> .",
        '<http://example.org/plants#tulip> <http://example.org/v#price> "3" .',
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path

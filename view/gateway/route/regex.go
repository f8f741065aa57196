package route

import (
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// groups is how many captures a rewrite can refer to: the whole and $1 to $9.
const groups = 10

// CompileRegex compiles the path of a Regex rule: bound to the begin of the
// path, without regard to case.
func CompileRegex(text string) (*regexp.Regexp, error) {
	re, err := regexp.Compile(bound(text))
	if err != nil {
		return nil, fmt.Errorf("route: regular expression %q: %w", text, err)
	}
	return re, nil
}

func bound(text string) string { return "(?i)^(?:" + escapeText(text) + ")" }

// escapeText writes what cannot stand in a path as itself in the way in which
// requests have it. In a class of characters it stays, and matches nothing.
func escapeText(text string) string {
	var out strings.Builder
	class := false
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		switch {
		case text[i] == '\\' && i+1 < len(text) && text[i+1] < 0x80:
			n = 2
			out.WriteString(text[i : i+2])
		case !class && (r >= 0x80 || r == ' '):
			out.WriteString("(?:")
			for _, b := range []byte(text[i : i+n]) {
				out.Write([]byte{'%', digits[b>>4], digits[b&15]})
			}
			out.WriteByte(')')
		default:
			if text[i] == '[' {
				class = true
			} else if text[i] == ']' {
				class = false
			}
			out.WriteString(text[i : i+n])
		}
		i += n
	}
	return out.String()
}

// pattern matches a regular expression. Most are a text and one of a few ends,
// for which there is no need of the machinery.
type pattern struct {
	literal string // lower case; all that matches begins with it
	tail    tail
	re      *regexp.Regexp // unless the tail says all
}

type tail uint8

const (
	machinery    tail = iota
	tailNone          // anything follows
	tailEnd           // $
	tailAll           // (.*)
	tailSlashAll      // /?(.*)
	tailSlash         // (/|$)
	tailElement       // (/|$)(.*)
	tailUnder         // (/.*)
)

var tails = map[string]tail{
	"": tailNone, ".*": tailNone, ".*$": tailNone,
	"$": tailEnd, "(.*)": tailAll, "(.*)$": tailAll,
	"/?(.*)": tailSlashAll, "/?(.*)$": tailSlashAll,
	"(/|$)": tailSlash, "(/|$)(.*)": tailElement, "(/|$)(.*)$": tailElement,
	"(/.*)": tailUnder, "(/.*)$": tailUnder,
}

// compilePattern prepares a rule's expression; nil if it has none that works.
func compilePattern(p *Path) *pattern {
	if p.Regex == nil || p.Regex.String() == bound(p.Value) {
		literal, rest, ok := split(p.Value)
		if t, known := tails[rest]; ok && known {
			return &pattern{literal: strings.ToLower(literal), tail: t}
		}
	}
	re, err := p.Regex, error(nil)
	switch {
	case re == nil:
		re, err = CompileRegex(p.Value)
	case re.String() != bound(p.Value):
		re, err = regexp.Compile("^(?:" + re.String() + ")") // whoever made it may not have bound it
	}
	if err != nil {
		return nil
	}
	return &pattern{literal: leading(re.String()), re: re}
}

// split divides an expression into the plain text at its begin and the rest.
func split(text string) (literal, rest string, ok bool) {
	text = strings.TrimPrefix(text, "^")
	n := 0
	for n < len(text) && text[n] > ' ' && text[n] < 0x80 && !strings.ContainsRune(`\.+*?()|[]{}^$`, rune(text[n])) {
		n++
	}
	if n < len(text) && (text[n] >= 0x80 || text[n] == ' ') {
		return "", "", false
	}
	if n > 0 && n < len(text) && strings.IndexByte("?*+{", text[n]) >= 0 {
		n--
	}
	return text[:n], text[n:], true
}

// leading is the text with which all matches of a bound expression begin, as
// far as it is plain, in lower case.
func leading(expr string) string {
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return ""
	}
	re = re.Simplify()
	if re.Op != syntax.OpConcat {
		return ""
	}
	var out strings.Builder
	began := false
	for _, sub := range re.Sub {
		switch {
		case sub.Op == syntax.OpBeginText:
			began = true
			continue
		case sub.Op == syntax.OpLiteral && began:
			for _, r := range sub.Rune {
				if r >= 0x80 {
					return out.String()
				}
				out.WriteByte(lower(byte(r)))
			}
			continue
		}
		break
	}
	return out.String()
}

// match tells whether the path matches and where its captures are.
func (x *pattern) match(path []byte, s *spans) bool {
	if len(path) < len(x.literal) {
		return false
	}
	for i := range len(x.literal) {
		if lower(path[i]) != x.literal[i] {
			return false
		}
	}
	at, end := len(x.literal), len(path)
	s.n = 0
	switch x.tail {
	case tailNone:
	case tailEnd:
		return at == end
	case tailAll:
		s.add(at, end)
	case tailSlashAll:
		if at < end && path[at] == '/' {
			at++
		}
		s.add(at, end)
	case tailSlash, tailElement:
		slash := at
		if at < end {
			if path[at] != '/' {
				return false
			}
			slash++
		}
		s.add(at, slash)
		if x.tail == tailElement {
			s.add(slash, end)
		}
	case tailUnder:
		if at == end || path[at] != '/' {
			return false
		}
		s.add(at, end)
	default:
		return x.machine(path, s)
	}
	return true
}

func (x *pattern) machine(path []byte, s *spans) bool {
	if x.re.NumSubexp() == 0 {
		return x.re.Match(path)
	}
	loc := x.re.FindSubmatchIndex(path)
	if loc == nil || loc[0] != 0 {
		return false
	}
	for i := 2; i+1 < len(loc) && s.n < groups-1; i += 2 {
		s.add(loc[i], loc[i+1])
	}
	return true
}

// spans are captures by their places in the path: $1 is the first.
type spans struct {
	n    int
	from [groups - 1]int32
	to   [groups - 1]int32
}

func (s *spans) add(from, to int) {
	s.from[s.n], s.to[s.n] = int32(from), int32(to)
	s.n++
}

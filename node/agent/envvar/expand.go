package envvar

import "strings"

// Expand replaces each $(NAME) by what lookup gives for it.
func Expand(s string, lookup func(name string) (string, bool)) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var out strings.Builder
	for {
		text, rest, found := strings.Cut(s, "$")
		out.WriteString(text)
		if !found {
			return out.String()
		}
		switch {
		case strings.HasPrefix(rest, "$"):
			out.WriteByte('$')
			s = rest[1:]
			continue
		case strings.HasPrefix(rest, "("):
			name, after, closed := strings.Cut(rest[1:], ")")
			if !closed { // no reference: written as it is
				break
			}
			if v, ok := lookup(name); ok {
				out.WriteString(v)
			} else {
				out.WriteString("$(" + name + ")")
			}
			s = after
			continue
		}
		out.WriteByte('$')
		s = rest
	}
}

// ExpandAll expands each of a list.
func ExpandAll(list []string, lookup func(name string) (string, bool)) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = Expand(s, lookup)
	}
	return out
}

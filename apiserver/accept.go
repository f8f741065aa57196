package apiserver

import (
	"net/http"
	"strings"

	"github.com/fingerpost/fingerpost/api/v1alpha1"
)

const (
	ownPrefix   = "/apis/" + v1alpha1.GroupName + "/"
	protobuf    = "application/vnd.kubernetes.protobuf"
	jsonContent = "application/json"
)

// jsonForOwnKinds answers in JSON where a client would take protobuf for our
// own kinds, which have no such encoding. Generic clients (garbage collection,
// namespace deletion) ask every group alike. Metadata and tables ("as=…") have
// one, and stay as asked for; so do request bodies, which are options.
func jsonForOwnKinds(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, ownPrefix) {
			if accept := r.Header.Get("Accept"); strings.Contains(accept, protobuf) {
				r = r.Clone(r.Context())
				r.Header.Set("Accept", withoutProtobuf(accept))
			}
		}
		h.ServeHTTP(w, r)
	})
}

func withoutProtobuf(accept string) string {
	var kept []string
	for part := range strings.SplitSeq(accept, ",") {
		part = strings.TrimSpace(part)
		if !strings.HasPrefix(part, protobuf) || strings.Contains(part, "as=") {
			kept = append(kept, part)
		}
	}
	if len(kept) == 0 {
		return jsonContent
	}
	return strings.Join(kept, ",")
}

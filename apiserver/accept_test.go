package apiserver

import "testing"

func TestWithoutProtobuf(t *testing.T) {
	const pb = "application/vnd.kubernetes.protobuf"
	for in, want := range map[string]string{
		pb:                       "application/json",
		pb + ",application/json": "application/json",
		pb + ";type=watch, application/json;stream=watch":                                        "application/json;stream=watch",
		pb + ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=Table,*/*":        pb + ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=Table,*/*",
		pb + ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1," + pb + ",application/json;q=.5": pb + ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;q=.5",
	} {
		if got := withoutProtobuf(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

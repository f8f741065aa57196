/* A UDP echo with the system calls that the DNS server uses: the limit of what
 * any server in user space can do with this kernel. Usage: echo PORT */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BATCH = 64, SIZE = 1500 };

int main(int argc, char **argv) {
	static char data[BATCH][SIZE];
	static struct sockaddr_in from[BATCH];
	static struct iovec part[BATCH];
	static struct mmsghdr message[BATCH];
	int fd = socket(AF_INET, SOCK_DGRAM, 0), size = 4 << 20;
	struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 0), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
	if (bind(fd, (struct sockaddr *)&here, sizeof here) != 0) {
		perror("bind");
		return 1;
	}
	for (int i = 0; i < BATCH; i++) {
		part[i].iov_base = data[i];
		message[i].msg_hdr = (struct msghdr){.msg_name = &from[i], .msg_iov = &part[i], .msg_iovlen = 1};
	}
	for (;;) {
		for (int i = 0; i < BATCH; i++) {
			part[i].iov_len = SIZE;
			message[i].msg_hdr.msg_namelen = sizeof from[i];
		}
		int n = recvmmsg(fd, message, BATCH, MSG_WAITFORONE, NULL);
		for (int i = 0; i < n; i++)
			part[i].iov_len = message[i].msg_len;
		for (int done = 0; done < n;) {
			int sent = sendmmsg(fd, message + done, n - done, 0);
			if (sent <= 0)
				break;
			done += sent;
		}
	}
}

# line.gp - one panel of lines with intervals, where they have any.
# data: one block "x y lo hi cut_lo cut_hi" per series, then one block "x y" per series for its
# companion. cut_lo, cut_hi: 1 where the interval leaves the axis, which an arrow shows.
# first: index of the panel's first block. series: number of series. style[i]: index of the colour
# and the shape of series i. companions: 1 to draw the companions, as dashed lines.
plot for [i=1:series] data index first+i-1 using 1:2 with lines \
       linecolor rgb colour[style[i]] linewidth 1.6 notitle, \
     for [i=1:series] data index first+i-1 using 1:($4>$3 ? $2 : NaN):3:4 with yerrorbars \
       linecolor rgb colour[style[i]] pointtype shape[style[i]] linewidth 1.1 notitle, \
     for [i=1:series] data index first+i-1 using 1:($4>$3 ? NaN : $2) with points \
       linecolor rgb colour[style[i]] pointtype shape[style[i]] linewidth 1.1 notitle, \
     for [i=1:series] data index first+i-1 using ($5==1 ? $1 : NaN):2:(0):($3-$2) with vectors \
       head filled size screen 0.012,22 linecolor rgb colour[style[i]] linewidth 1.1 notitle, \
     for [i=1:series] data index first+i-1 using ($6==1 ? $1 : NaN):2:(0):($4-$2) with vectors \
       head filled size screen 0.012,22 linecolor rgb colour[style[i]] linewidth 1.1 notitle, \
     for [i=1:series*companions] data index first+series+i-1 using 1:2 with lines \
       dashtype (6,5) linecolor rgb colour[style[i]] linewidth 1.1 notitle
